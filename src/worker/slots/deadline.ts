/**
 * A deadline that moves often and has one timer: thousands of short jobs a second move it without touching the timer.
 */

/** Timers of Node hold no more. */
const longestTimerMs = 2 ** 31 - 1

export class Deadline {
  readonly #onPassed: () => void
  #atMs = Number.POSITIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #timerFiresAtMs = Number.POSITIVE_INFINITY

  constructor(onPassed: () => void) {
    this.#onPassed = onPassed
  }

  /** Calls onPassed once at this moment of performance.now(), unless it is set again or cleared before. */
  set(atMs: number): void {
    this.#atMs = atMs
    if (this.#timer === undefined || atMs < this.#timerFiresAtMs) this.#arm()
  }

  /** The timer may still fire once; it then does nothing. */
  clear(): void {
    this.#atMs = Number.POSITIVE_INFINITY
  }

  #arm(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#atMs === Number.POSITIVE_INFINITY) return
    const waitMs = Math.min(longestTimerMs, Math.max(1, Math.ceil(this.#atMs - performance.now())))
    this.#timerFiresAtMs = performance.now() + waitMs
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      if (performance.now() < this.#atMs) {
        this.#arm()
      } else {
        this.#atMs = Number.POSITIVE_INFINITY
        this.#onPassed()
      }
    }, waitMs)
    // The process of the slot keeps the agent alive, not its clock.
    this.#timer.unref()
  }
}
