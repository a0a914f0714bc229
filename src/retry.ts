/** How long to wait before another try: doubles each time, with full jitter on its upper half. */
import { setTimeout as sleep } from 'node:timers/promises'

export class Backoff {
  readonly #firstMs: number
  readonly #longestMs: number
  #failureCount = 0

  constructor(firstMs: number, longestMs: number) {
    this.#firstMs = firstMs
    this.#longestMs = longestMs
  }

  get failureCount(): number {
    return this.#failureCount
  }

  reset(): void {
    this.#failureCount = 0
  }

  /** The next wait. */
  nextMs(atLeastMs = 0): number {
    const fullMs = Math.min(this.#longestMs, this.#firstMs * 2 ** Math.min(this.#failureCount, 30))
    this.#failureCount += 1
    return Math.max(atLeastMs, fullMs / 2 + (Math.random() * fullMs) / 2)
  }

  /** Waits; returns at once when the signal aborts. */
  async wait(signal: AbortSignal, atLeastMs = 0): Promise<void> {
    await pause(this.nextMs(atLeastMs), signal)
  }
}

/** Resolves after `waitMs`, or at once when the signal aborts. */
export async function pause(waitMs: number, signal: AbortSignal): Promise<void> {
  await sleep(waitMs, undefined, { signal }).catch(() => undefined)
}

/** Resolves when the promise has, after `waitMs`, or when the signal aborts; leaves no timer behind. */
export async function settledWithin(promise: Promise<void>, waitMs: number, signal: AbortSignal): Promise<void> {
  const isOver = new AbortController()
  try {
    await Promise.race([promise, pause(waitMs, AbortSignal.any([signal, isOver.signal]))])
  } finally {
    isOver.abort()
  }
}

const lookEveryMs = 25

/** Looks until it is done, its time (by performance.now()) is over, or the signal aborts. */
export async function pauseUntil(isDone: () => boolean, byMs: () => number, signal: AbortSignal): Promise<void> {
  while (!isDone() && performance.now() < byMs() && !signal.aborted) await pause(lookEveryMs, signal)
}
