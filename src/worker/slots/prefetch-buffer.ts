/**
 * Jobs that wait for a slot, in order, and what is known of how long they will take: short ones go to a slot together.
 */
import type { Content } from '../../contract/worker-protocol.ts'
import type { Attempt } from '../attempts/attempt.ts'

/** Jobs of one batch, and how long they should take together. */
const batchCount = 64
const batchMs = 10
/** Inline payloads of one batch. */
const batchChars = 1024 * 1024
/** A process that starts for a single job takes about as long: such a job is never short. */
const isolationMs = 100
/** After this long without an outcome, what is known of the jobs to come is old. */
const staleAfterMs = 10_000

export class PrefetchBuffer {
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
   * goes by itself: they are streamed into its slot ahead of it. So does an isolated one, and only into a fresh slot.
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

/**
 * How long jobs take, from those that ended: quick to believe that they are long, slow to believe that they are short,
 * since one long job among many in a slot holds up those behind it.
 */
const rise = 0.25
const fall = 0.1
/** Types come from outside: no more than this many are remembered. */
const maxTypes = 2000

export class DurationEstimate {
  readonly #byType = new Map<string, number>()
  #overallMs: number | undefined

  observe(type: string, durationMs: number): void {
    if (this.#byType.size >= maxTypes && !this.#byType.has(type)) this.#byType.clear()
    this.#byType.set(type, blend(this.#byType.get(type), durationMs))
    this.#overallMs = blend(this.#overallMs, durationMs)
  }

  /** Expected duration of a job of this type; Infinity when none has ended yet. */
  ofTypeMs(type: string): number {
    return this.#byType.get(type) ?? Number.POSITIVE_INFINITY
  }

  /** Expected duration of the next job of any type; Infinity when none has ended yet. */
  get overallMs(): number {
    return this.#overallMs ?? Number.POSITIVE_INFINITY
  }

  /** After an idle time what comes next may be of another kind. */
  forgetOverall(): void {
    this.#overallMs = undefined
  }
}

function blend(estimateMs: number | undefined, durationMs: number): number {
  if (estimateMs === undefined) return durationMs
  return estimateMs + (durationMs - estimateMs) * (durationMs > estimateMs ? rise : fall)
}

/** How many more jobs a worker should prefetch. Pure. */

/** Jobs up to this duration are claimed ahead of time and sent to a slot several at once. */
export const shortJobMs = 50
/** A slot whose job runs longer than this counts for nothing until it ends. */
export const longRunMs = 200
/** How much work a worker prefetches when its jobs are short. */
const prefetchMs = 200
const mostHeld = 500

export interface PrefetchSnapshot {
  /** Slots that can take jobs and do not run a long one. */
  readonly openSlots: number
  /** Jobs that these slots have or will get: buffered, waiting in a slot or running there. */
  readonly heldCount: number
  /** Expected duration of a job; Infinity when unknown. */
  readonly expectedMs: number
}

/** @returns 0 or more; long or unknown jobs are never prefetched: each needs a free slot */
export function prefetchCount({ openSlots, heldCount, expectedMs }: PrefetchSnapshot): number {
  const target =
    expectedMs > shortJobMs
      ? openSlots
      : Math.min(mostHeld, Math.ceil((openSlots * prefetchMs) / Math.max(expectedMs, 0.01)))
  return Math.max(0, target - heldCount)
}
