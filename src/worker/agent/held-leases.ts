/** All attempts that this worker holds, from the claim until a node has the outcome: what a heartbeat extends. */
import type { LeaseRef } from '../../contract/worker-protocol.ts'
import type { Attempt } from './attempt.ts'

/** Leases that one heartbeat may name. */
const maxRefs = 10_000

export class HeldLeases {
  readonly #byRef = new Map<string, Attempt>()
  #leaseMs = 15_000
  /** When the last heartbeat that a node accepted was sent. */
  #extendedAtMs = Number.NEGATIVE_INFINITY

  /** How long a lease holds after a claim or heartbeat, as the node last said. */
  get leaseMs(): number {
    return this.#leaseMs
  }

  set leaseMs(leaseMs: number) {
    this.#leaseMs = leaseMs
  }

  get size(): number {
    return this.#byRef.size
  }

  /** A node has accepted a heartbeat, sent at this moment, for all that was held then. */
  extended(sentAtMs: number): void {
    this.#extendedAtMs = Math.max(this.#extendedAtMs, sentAtMs)
  }

  /** False when the lease must have run out by now: another worker may run the job. */
  isGood(attempt: Attempt): boolean {
    return performance.now() - Math.max(attempt.claimedAtMs, this.#extendedAtMs) < this.#leaseMs
  }

  add(attempt: Attempt): void {
    this.#byRef.set(keyOf(attempt.ref), attempt)
  }

  remove(attempts: Iterable<Attempt>): void {
    for (const attempt of attempts) this.#byRef.delete(keyOf(attempt.ref))
  }

  has(attempt: Attempt): boolean {
    return this.#byRef.has(keyOf(attempt.ref))
  }

  find(ref: LeaseRef): Attempt | undefined {
    return this.#byRef.get(keyOf(ref))
  }

  refs(): LeaseRef[] {
    const refs: LeaseRef[] = []
    for (const { ref } of this.#byRef.values()) if (refs.push(ref) >= maxRefs) break
    return refs
  }

  /** Something is held that has been there for a while and was claimed after this moment. */
  hasUncovered(sinceMs: number, heldForMs: number): boolean {
    const beforeMs = performance.now() - heldForMs
    for (const { claimedAtMs } of this.#byRef.values()) if (claimedAtMs > sinceMs && claimedAtMs < beforeMs) return true
    return false
  }

  attempts(): Attempt[] {
    return [...this.#byRef.values()]
  }
}

const keyOf = ({ workId, token }: LeaseRef): string => `${workId}\n${token}`
