/**
 * Knows since when this node has recorded heartbeats without a gap. While Redis is away, or this process is stopped, no
 * heartbeat is recorded. A worker's silence therefore counts only from the start of the window.
 */
export class ObservationWindow {
  readonly #longestGapMs: number
  #since: number | undefined
  #lastAt = 0

  /** @param longestGapMs a longer time without an answer of Redis closes the window */
  constructor(longestGapMs: number) {
    this.#longestGapMs = longestGapMs
  }

  /** Redis answered at `now`. */
  extend(now: number): void {
    if (this.#since === undefined || now - this.#lastAt > this.#longestGapMs) this.#since = now
    this.#lastAt = now
  }

  /** Redis did not answer. */
  close(): void {
    this.#since = undefined
  }

  /** In ms since the epoch; `now` while the window is closed. */
  since(now: number): number {
    return this.#since ?? now
  }
}
