/**
 * Requests that show no good key, by address: counted, told once a minute, and answered 429 when there are too many.
 * Who has a good key is not held up by others behind the same address.
 */
import { isIPv6 } from 'node:net'
import type { Logger } from 'pino'

interface Window {
  /** ms since the epoch */
  readonly since: number
  count: number
}

const minuteMs = 60_000
/** Addresses that are remembered; then the oldest are forgotten. */
const mostAddresses = 10_000

export class LoginGuard {
  readonly #windows = new Map<string, Window>()
  readonly #mostPerMinute: number
  readonly #log: Pick<Logger, 'warn'>
  readonly #clock: () => number

  /** @param clock ms since the epoch */
  constructor(mostPerMinute: number, log: Pick<Logger, 'warn'>, clock: () => number = Date.now) {
    this.#mostPerMinute = mostPerMinute
    this.#log = log
    this.#clock = clock
  }

  /**
   * One more from there.
   * @returns undefined while it is not too many; else in how many ms it may try again
   */
  failed(address: string): number | undefined {
    const key = networkOf(address)
    const now = this.#clock()
    const known = this.#windows.get(key)
    const window = known !== undefined && now - known.since < minuteMs ? known : { since: now, count: 0 }
    window.count += 1
    if (window !== known) {
      this.#log.warn(
        { address, ...(known !== undefined && { countBefore: known.count }) },
        'a request without a good key was refused; more from there in this minute are counted only',
      )
      this.#windows.delete(key)
      this.#windows.set(key, window)
      this.#forgetOldest()
    }
    return window.count > this.#mostPerMinute ? window.since + minuteMs - now : undefined
  }

  #forgetOldest(): void {
    if (this.#windows.size <= mostAddresses) return
    const [oldest] = this.#windows.keys()
    this.#windows.delete(oldest as string)
  }
}

/** One household has a /64 of IPv6 for itself. */
function networkOf(address: string): string {
  if (!isIPv6(address) || address.startsWith('::ffff:')) return address
  const [head = '', tail = ''] = address.split('::')
  const [before, after] = [head.split(':'), tail.split(':')]
  return [...before, ...Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0'), ...after]
    .slice(0, 4)
    .join(':')
}
