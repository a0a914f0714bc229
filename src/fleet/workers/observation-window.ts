/**
 * Remembers since when this node could record heartbeats without a break. While Redis was away, or this process stood
 * still, no worker could be heard: its silence proves nothing until it has had the full time again.
 */
export class Contact {
  readonly #longestGapMs: number
  #since: number | undefined
  #lastAt = 0

  /** @param longestGapMs a longer time without a sign of Redis counts as a break */
  constructor(longestGapMs: number) {
    this.#longestGapMs = longestGapMs
  }

  /** Redis answered at `now`. */
  heard(now: number): void {
    if (this.#since === undefined || now - this.#lastAt > this.#longestGapMs) this.#since = now
    this.#lastAt = now
  }

  /** Redis did not answer. */
  broken(): void {
    this.#since = undefined
  }

  /** In ms since the epoch; `now` when there is no contact. */
  since(now: number): number {
    return this.#since ?? now
  }
}
