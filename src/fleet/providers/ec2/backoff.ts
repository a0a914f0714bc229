/** Waiting between tries: exponential, with full jitter, so that many callers who failed together do not return together. */
import { setTimeout as delay } from 'node:timers/promises'

export interface BackoffOptions {
  /** The longest wait before the second try; doubles each time. */
  readonly firstMs: number
  readonly maxMs: number
}

/**
 * How long to wait before the next try.
 * @param tries how many have failed, from 1
 * @param random from 0 to 1
 */
export function backoffMs({ firstMs, maxMs }: BackoffOptions, tries: number, random: number): number {
  const ceiling = Math.min(maxMs, firstMs * 2 ** (tries - 1))
  // Never less than a tenth: a wait of nothing would be no backoff.
  return ceiling * (0.1 + 0.9 * random)
}

/** A point in time after which nothing is begun any more. */
export class Deadline {
  readonly #at: number

  /** @param ms from now */
  constructor(ms: number) {
    this.#at = performance.now() + ms
  }

  /** In ms, never below 0. */
  get remainingMs(): number {
    return Math.max(0, this.#at - performance.now())
  }

  /**
   * Waits.
   * @returns false, at once, when the time would not suffice
   */
  async wait(ms: number): Promise<boolean> {
    if (ms >= this.remainingMs) return false
    await delay(ms)
    return true
  }
}
