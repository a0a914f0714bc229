/**
 * Publishes the metrics of this node, once in each minute of the clock, so that the sum over a minute counts nodes.
 * stopped → waiting ⇄ publishing → stopped. An outage is logged once, and once more when it is over; what could not be
 * published is not made up for.
 */
import type { Logger } from 'pino'
import type { CloudWatch } from './cloudwatch.ts'
import { type MetricSources, readPoints } from './read-points.ts'

export interface PublisherOptions {
  readonly sources: MetricSources
  readonly target: Pick<CloudWatch, 'put'>
  readonly log: Pick<Logger, 'info' | 'warn'>
}

const minuteMs = 60_000
/** Not all nodes at the same instant. */
const spreadMs = 5000

export class MetricsPublisher {
  readonly #options: PublisherOptions
  #timer: NodeJS.Timeout | undefined
  #running: Promise<number> | undefined
  #isActive = false
  #lastMinute = Number.NEGATIVE_INFINITY
  readonly #failing = new Set<string>()

  constructor(options: PublisherOptions) {
    this.#options = options
  }

  /** Publishes at once and then each minute. Calling twice is safe. */
  start(): void {
    if (this.#isActive) return
    this.#isActive = true
    this.#timer = setTimeout(() => void this.#tick(), Math.random() * spreadMs)
  }

  /**
   * Publishes for the minute of `now`, or joins what is under way. Never rejects.
   * @param now in ms since the epoch
   * @returns how many data points; 0 when this minute has had its own, or CloudWatch did not take them
   */
  runOnce(now: number): Promise<number> {
    this.#running ??= this.#publish(now).finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  /** Returns when nothing is under way and nothing will come. Calling twice is safe. */
  async stop(): Promise<void> {
    this.#isActive = false
    clearTimeout(this.#timer)
    await this.#running
  }

  async #tick(): Promise<void> {
    await this.runOnce(Date.now())
    if (!this.#isActive) return
    const untilNextMs = minuteMs - (Date.now() % minuteMs)
    this.#timer = setTimeout(() => void this.#tick(), untilNextMs + Math.random() * spreadMs)
  }

  async #publish(now: number): Promise<number> {
    const minute = now - (now % minuteMs)
    if (minute <= this.#lastMinute) return 0
    const faults = new Map<string, unknown>()
    const points = await readPoints(this.#options.sources, now, (what, error) => faults.set(what, error))
    let count = 0
    try {
      await this.#options.target.put(points, minute)
      this.#lastMinute = minute
      count = points.length
    } catch (error) {
      faults.set('CloudWatch', error)
    }
    this.#report(faults)
    return count
  }

  #report(faults: ReadonlyMap<string, unknown>): void {
    const { log } = this.#options
    for (const [what, error] of faults) {
      if (this.#failing.has(what)) continue
      this.#failing.add(what)
      log.warn({ err: error, part: what }, 'metrics are not published, or not all of them')
    }
    for (const what of this.#failing) {
      if (faults.has(what)) continue
      this.#failing.delete(what)
      log.info({ part: what }, 'metrics are published again')
    }
  }
}
