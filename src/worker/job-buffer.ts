/**
 * Jobs that wait for a slot, in order, and what is known of how long they will take: short ones go to a slot together.
 */
import type { Content } from '../contract/worker-protocol.ts'
import type { Attempt } from './attempt.ts'
import { DurationEstimate } from './duration-estimate.ts'

/** Jobs of one batch, and how long they should take together. */
const batchCount = 64
const batchMs = 10
/** Inline payloads of one batch. */
const batchChars = 1024 * 1024
/** A process that starts for one job alone takes about as long: such a job is never short. */
const isolationMs = 100
/** After this long without an outcome, what is known of the jobs to come is old. */
const staleAfterMs = 10_000

export class JobBuffer {
  #waiting: Attempt[] = []
  readonly #durations = new DurationEstimate()
  readonly #isIsolated: (attempt: Attempt) => boolean
  #observedAtMs = 0

  /** @param isIsolated the attempt needs a slot that has run nothing before */
  constructor(isIsolated: (attempt: Attempt) => boolean = () => false) {
    this.#isIsolated = isIsolated
  }

  get size(): number {
    return this.#waiting.length
  }

  /** Expected duration of a job yet to come; Infinity when unknown. */
  expectedMs(nowMs: number): number {
    if (nowMs - this.#observedAtMs > staleAfterMs) this.#durations.forgetOverall()
    return this.#durations.overallMs
  }

  observe(attempt: Attempt, durationMs: number, nowMs: number): void {
    this.#observedAtMs = nowMs
    const { type } = attempt.lease
    this.#durations.observe(type, this.#isIsolated(attempt) ? Math.max(durationMs, isolationMs) : durationMs)
  }

  /** How many wait that need a fresh slot. */
  get isolatedCount(): number {
    return this.#waiting.filter(this.#isIsolated).length
  }

  append(attempts: readonly Attempt[]): void {
    this.#waiting.push(...attempts)
  }

  /** Before all others. */
  prepend(attempts: readonly Attempt[]): void {
    this.#waiting.unshift(...attempts)
  }

  /** @returns false when it does not wait here */
  remove(attempt: Attempt): boolean {
    const index = this.#waiting.indexOf(attempt)
    if (index >= 0) this.#waiting.splice(index, 1)
    return index >= 0
  }

  has(attempt: Attempt): boolean {
    return this.#waiting.includes(attempt)
  }

  takeAll(): Attempt[] {
    return this.#waiting.splice(0)
  }

  /** Takes out those that were claimed before this moment. */
  takeClaimedBefore(momentMs: number): Attempt[] {
    const taken = this.#waiting.filter(attempt => attempt.claimedAtMs < momentMs)
    if (taken.length > 0) this.#waiting = this.#waiting.filter(attempt => attempt.claimedAtMs >= momentMs)
    return taken
  }

  /** Whether the next job for a slot may share it with others. @param isFresh the slot has run nothing yet */
  isNextShort(isFresh: boolean): boolean {
    return this.#isShort(this.#waiting[this.#nextFor(isFresh)])
  }

  /**
   * Takes the next job, and more with it when they are all short: up to a fair share of what waits. One that has blobs
   * goes alone: they are streamed into its slot ahead of it. An isolated one goes alone, too, and only into a fresh slot.
   * @param sharers slots among which the waiting jobs are divided
   * @param isFresh the slot has run nothing yet
   */
  takeBatch(sharers: number, isFresh: boolean): Attempt[] {
    const start = this.#nextFor(isFresh)
    if (start < 0) return []
    const atMost = Math.min(batchCount, Math.ceil(this.#waiting.length / Math.max(1, sharers)))
    let totalMs = 0
    let chars = 0
    let count = 0
    for (const attempt of this.#waiting.slice(start, start + atMost)) {
      totalMs += this.#durations.ofTypeMs(attempt.lease.type)
      chars += sizeOf(attempt)
      if (count > 0 && (!this.#isShort(attempt) || totalMs > batchMs || chars > batchChars)) break
      count += 1
      if (attempt.hasBlobs || this.#isIsolated(attempt)) break
    }
    return this.#waiting.splice(start, count)
  }

  #nextFor(isFresh: boolean): number {
    return isFresh ? Math.min(0, this.#waiting.length - 1) : this.#waiting.findIndex(one => !this.#isIsolated(one))
  }

  #isShort(attempt: Attempt | undefined): boolean {
    return (
      attempt !== undefined &&
      !attempt.hasBlobs &&
      !this.#isIsolated(attempt) &&
      this.#durations.ofTypeMs(attempt.lease.type) <= batchMs
    )
  }
}

/** Base64 is by far the longest of what can stand in a lease; JSON has a limit of its own. */
const sizeOf = ({ lease: { payload, checkpoint } }: Attempt): number =>
  charsOf(payload) + (checkpoint === undefined ? 0 : charsOf(checkpoint))

const charsOf = (content: Content): number => ('base64' in content ? content.base64.length : 0)
