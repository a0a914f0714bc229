/**
 * Publishes the metrics of this node, once in each minute of the clock, so that the sum over a minute counts nodes.
 * stopped → waiting ⇄ publishing → stopped. An outage is logged once, and once more when it is over; what could not be
 * published is not made up for.
 */

import { hostname } from 'node:os'
import type { Logger } from 'pino'
import type { Fleet } from '../fleet/fleet.ts'
import { oldestWaitingSince } from '../jobs/admin/oldest-waiting.ts'
import type { Jobs } from '../jobs/jobs.ts'
import { type RedisClient, serversOf } from '../redis/connect/connection.ts'
import { readInfo } from '../redis/inspect/info.ts'
import type { Refusals } from '../refusal-counts.ts'
import type { Settings } from '../settings/settings.ts'
import { type CloudWatch, openCloudWatch } from './cloudwatch.ts'
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

/** Puts the publisher together from the parts of a node; none without a namespace. */
export interface MetricsOptions {
  readonly settings: Pick<Settings, 'cloudwatchNamespace' | 'deployment' | 'awsRegion' | 'awsEndpointUrl'>
  readonly jobs: Jobs
  readonly fleet: Fleet
  readonly redis: RedisClient
  readonly refusals: Refusals
  readonly log: Pick<Logger, 'info' | 'warn'>
}

export interface Metrics {
  start(): void
  stop(): Promise<void>
}

/** @returns undefined when nobody asked for metrics */
export async function openMetrics(options: MetricsOptions): Promise<Metrics | undefined> {
  const { settings, log } = options
  if (settings.cloudwatchNamespace === '') return undefined
  const target = await openCloudWatch({
    region: settings.awsRegion,
    endpoint: settings.awsEndpointUrl,
    namespace: settings.cloudwatchNamespace,
    deployment: settings.deployment,
  })
  const publisher = new MetricsPublisher({ sources: sourcesOf(options), target, log })
  return {
    start: () => publisher.start(),
    async stop() {
      await publisher.stop()
      target.close()
    },
  }
}

export function sourcesOf({ jobs, fleet, redis, refusals }: Omit<MetricsOptions, 'settings' | 'log'>): MetricSources {
  return {
    node: hostname(),
    ping: () => redis.ping(),
    replication: () => Promise.all(serversOf(redis).map(async server => readInfo(await server.info('replication')))),
    queueNames: () => jobs.queues.names(),
    async backlog(name, now) {
      const { control, queue } = jobs.of(name)
      const [load, dead, oldestSince] = await Promise.all([
        control.load(0),
        queue.redis.zcard(queue.bull.toKey('failed')),
        oldestWaitingSince(queue, now),
      ])
      return { waiting: load.waiting + load.dueDelayed, dead, oldestSince }
    },
    pools: () => fleet.status(),
    refusals: () => refusals.take(),
  }
}
