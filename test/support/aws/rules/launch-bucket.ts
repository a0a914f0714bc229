/**
 * EC2's token bucket for launches: 5 calls at once, then 2 a second; RequestLimitExceeded beyond. Off unless turned on.
 * Why: moto takes any number of calls, an account does not.
 */
import { Refusal } from '../reply.ts'

const launches = new Set(['RunInstances', 'CreateFleet'])

export class LaunchBucket {
  #size = Number.POSITIVE_INFINITY
  #perSecond = 0
  #tokens = Number.POSITIVE_INFINITY
  #at = 0

  turnOn({ size = 5, perSecond = 2 }: { size?: number; perSecond?: number } = {}): void {
    this.#size = size
    this.#perSecond = perSecond
    this.#tokens = size
    this.#at = performance.now()
  }

  turnOff(): void {
    this.#size = Number.POSITIVE_INFINITY
    this.#tokens = Number.POSITIVE_INFINITY
  }

  /** @throws Refusal when a launch comes too soon */
  admit(action: string): void {
    if (!launches.has(action) || this.#size === Number.POSITIVE_INFINITY) return
    const now = performance.now()
    this.#tokens = Math.min(this.#size, this.#tokens + ((now - this.#at) / 1000) * this.#perSecond)
    this.#at = now
    if (this.#tokens < 1) throw new Refusal('RequestLimitExceeded', 'Request limit exceeded.')
    this.#tokens -= 1
  }
}
