/**
 * How often slots ended that were to run a job which went back to its queue afterwards: if it comes again, it is counted on,
 * and a job that ends slots for ever is blamed in the end.
 */
import type { Attempt } from '../agent/attempt.ts'

/** Jobs; the oldest are forgotten first. */
const mostRemembered = 1000

export class FutileHandOvers {
  readonly #counts = new Map<string, number>()

  /** This attempt goes back. */
  remember({ ref: { workId }, futileHandOvers }: Attempt): void {
    if (futileHandOvers === 0) return
    this.#counts.set(workId, futileHandOvers)
    const [oldest] = this.#counts.keys()
    if (this.#counts.size > mostRemembered && oldest !== undefined) this.#counts.delete(oldest)
  }

  /** This attempt has come: it has the count of the one before. */
  resume(attempt: Attempt): void {
    const { workId } = attempt.ref
    attempt.futileHandOvers = this.#counts.get(workId) ?? 0
    this.#counts.delete(workId)
  }
}
