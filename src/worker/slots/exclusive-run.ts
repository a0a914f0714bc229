/**
 * The turn of a job that must run exclusively, because workers were lost under it:
 *
 *   free ──admit──▶ waiting (until nothing else is here) ──begin──▶ running ──left──▶ free
 *
 * While the turn is taken no other job comes in.
 */
import type { Attempt } from '../attempts/attempt.ts'

export class ExclusiveRun {
  #attempt: Attempt | undefined
  #hasBegun = false
  #wasLast = false

  get isTaken(): boolean {
    return this.#attempt !== undefined
  }

  isTurnOf(attempt: Attempt): boolean {
    return this.#attempt === attempt
  }

  /** The one that has not begun yet. */
  get waiting(): Attempt | undefined {
    return this.#hasBegun ? undefined : this.#attempt
  }

  /** No other job has come since the last turn. */
  get wasLast(): boolean {
    return this.#wasLast
  }

  /**
   * The first of these that needs the turn takes it, if it is free. @returns those that may not come in while it is
   * taken
   */
  admit(attempts: readonly Attempt[]): Attempt[] {
    if (this.#attempt === undefined) {
      this.#attempt = attempts.find(({ lease }) => lease.exclusive === true)
      this.#hasBegun = false
      this.#wasLast = this.#attempt !== undefined
    }
    return this.#attempt === undefined ? [] : attempts.filter(attempt => attempt !== this.#attempt)
  }

  begin(): void {
    this.#hasBegun = true
  }

  /** These are not here any more. */
  left(attempts: readonly Attempt[]): void {
    if (this.#attempt !== undefined && attempts.includes(this.#attempt)) this.#attempt = undefined
  }
}
