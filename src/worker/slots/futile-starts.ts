/**
 * Remembers the futile starts of jobs that were requeued. When the job comes again its count goes on, so that a job
 * that keeps ending slots fails in the end.
 */
import type { Attempt } from '../attempts/attempt.ts'

/** Jobs; the oldest are forgotten first. */
const mostRemembered = 1000

export class FutileStarts {
  readonly #counts = new Map<string, number>()

  /** This attempt goes back. */
  remember({ ref: { workId }, futileStarts }: Attempt): void {
    if (futileStarts === 0) return
    this.#counts.set(workId, futileStarts)
    const [oldest] = this.#counts.keys()
    if (this.#counts.size > mostRemembered && oldest !== undefined) this.#counts.delete(oldest)
  }

  /** This attempt has come: it has the count of the one before. */
  resume(attempt: Attempt): void {
    const { workId } = attempt.ref
    attempt.futileStarts = this.#counts.get(workId) ?? 0
    this.#counts.delete(workId)
  }
}
