/** Puts the publisher together from the parts of a node; none without a namespace. */
import { hostname } from 'node:os'
import type { Logger } from 'pino'
import type { Fleet } from '../fleet/fleet.ts'
import type { Jobs } from '../jobs/jobs.ts'
import { oldestWaitingSince } from '../jobs/oldest-waiting.ts'
import { type RedisClient, serversOf } from '../redis/connection.ts'
import type { Refusals } from '../refusals.ts'
import type { Settings } from '../settings.ts'
import { openCloudWatch } from './cloudwatch.ts'
import { MetricsPublisher } from './publisher.ts'
import type { MetricSources } from './read-points.ts'

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
    replication: () => Promise.all(serversOf(redis).map(server => server.info('replication'))),
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
