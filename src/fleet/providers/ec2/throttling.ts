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

/**
 * A token bucket like those with which EC2 throttles: it holds `capacity` tokens and gets `perSecond` new ones. Who takes
 * more than there are waits until they have come; those who come later wait behind.
 */
export class TokenBucket {
  readonly #capacity: number
  readonly #perSecond: number
  readonly #clock: () => number
  #tokens: number
  #at: number

  /** @param clock monotonic, in ms */
  constructor(capacity: number, perSecond: number, clock: () => number = () => performance.now()) {
    this.#capacity = capacity
    this.#perSecond = perSecond
    this.#clock = clock
    this.#tokens = capacity
    this.#at = clock()
  }

  /**
   * Takes tokens, which may have to come yet.
   * @param longestMs who would have to wait longer takes nothing
   * @returns how many ms to wait before they may be used; undefined when that is too long
   */
  take(count: number, longestMs: number): number | undefined {
    this.#refill()
    const missing = Math.max(0, count - this.#tokens)
    const waitMs = (missing / this.#perSecond) * 1000
    if (waitMs > longestMs) return undefined
    this.#tokens -= count
    return waitMs
  }

  /** EC2 said that its own bucket is empty: so is this one. */
  empty(): void {
    this.#refill()
    this.#tokens = Math.min(0, this.#tokens)
  }

  #refill(): void {
    const now = this.#clock()
    this.#tokens = Math.min(this.#capacity, this.#tokens + ((now - this.#at) / 1000) * this.#perSecond)
    this.#at = now
  }
}
