/**
 * All attempts that this worker holds, which is what a heartbeat extends. `attempt.place` says which actor has one:
 *
 *   add ──▶ slots ──outcome──▶ reporter ──a node has the outcome──────────▶ gone
 *             ├────requeue───▶ requeues ──its newest checkpoint is kept──▶ gone
 *             └────the lease is gone──────────────────────────────────────▶ gone
 */
import type { LeaseRef } from '../../contract/worker-protocol.ts'
import type { Attempt, Outcome } from './attempt.ts'

/** What the slots ask of the agent. */
export interface AttemptEvents {
  /** The bytes of the value are only good until this returns: keep a copy. */
  readonly onOutcome: (attempt: Attempt, outcome: Outcome) => void
  /** These will not start here; no attempt is spent. */
  readonly onRequeue: (attempts: Attempt[]) => void
  /** The attempt has new log lines or progress. */
  readonly onUpdate: (attempt: Attempt) => void
  /** The attempt leaves these bytes for the next one; the receiver owns them and calls `answer` once it is known. */
  readonly onCheckpoint: (attempt: Attempt, bytes: Buffer, answer: (error?: string) => void) => void
  /** The prefetch may have grown. */
  readonly onRoom: () => void
}

/** Leases that one heartbeat may name. */
const maxRefs = 10_000

export class AttemptTable {
  readonly events: AttemptEvents
  /** Requeue calls on their way: until they end, the nodes may still count those jobs as held here. */
  readonly leaving = new Set<Promise<void>>()
  /** How long a lease holds after a claim or heartbeat, as the node last said. */
  leaseMs = 15_000
  readonly #byRef = new Map<string, Attempt>()
  /** When the last heartbeat that a node accepted was sent. */
  #extendedAtMs = Number.NEGATIVE_INFINITY

  constructor(events: AttemptEvents) {
    this.events = events
  }

  add(attempt: Attempt): void {
    this.#byRef.set(keyOf(attempt.ref), attempt)
  }

  /** Their leases are not extended any more, and no actor has them. */
  remove(attempts: readonly Attempt[]): void {
    for (const attempt of attempts) {
      attempt.place = 'gone'
      attempt.checkpointWait?.abort()
      this.#byRef.delete(keyOf(attempt.ref))
    }
    this.events.onRoom()
  }

  find(ref: LeaseRef): Attempt | undefined {
    return this.#byRef.get(keyOf(ref))
  }

  /** A node has accepted a heartbeat, sent at this moment, for all that was held then. */
  extended(sentAtMs: number): void {
    this.#extendedAtMs = Math.max(this.#extendedAtMs, sentAtMs)
  }

  /** False when the lease must have run out by now: another worker may run the job. */
  isGood(attempt: Attempt): boolean {
    return performance.now() - Math.max(attempt.claimedAtMs, this.#extendedAtMs) < this.leaseMs
  }

  /** The worker holds only this job, as far as the nodes know. */
  isOnly(attempt: Attempt): boolean {
    return this.#byRef.size === 1 && attempt.place !== 'gone' && this.leaving.size === 0
  }

  refs(): LeaseRef[] {
    const refs: LeaseRef[] = []
    for (const { ref } of this.#byRef.values()) if (refs.push(ref) >= maxRefs) break
    return refs
  }

  /** Holds something that was claimed after `sinceMs` and is here for longer than `heldForMs`. */
  hasUncovered(sinceMs: number, heldForMs: number): boolean {
    const beforeMs = performance.now() - heldForMs
    for (const { claimedAtMs } of this.#byRef.values()) if (claimedAtMs > sinceMs && claimedAtMs < beforeMs) return true
    return false
  }

  all(): Attempt[] {
    return [...this.#byRef.values()]
  }
}

const keyOf = ({ workId, token }: LeaseRef): string => `${workId}\n${token}`
