/**
 * What a node publishes for alarms, each metric once: its unit, the statistic that makes sense of it, and what it says.
 * docs/metrics.md is held against this table by a test.
 *
 * Each is published for the deployment as a whole (dimension Deployment), and those with `per` also for each queue or
 * node (dimensions Deployment and Queue, or Deployment and Node). What concerns no single node is published by every
 * node, since any of them may be gone: the same figure several times, so its statistic is Maximum or Minimum, never
 * Sum.
 */

interface Metric {
  readonly unit: 'Count' | 'Seconds'
  /** Of the data points of one minute. */
  readonly statistic: 'Sum' | 'Maximum' | 'Minimum'
  readonly per?: 'Queue' | 'Node'
  /** How the figure of the deployment comes from those of its queues. */
  readonly over?: 'sum' | 'max'
  readonly help: string
}

export const metricTable = {
  NodeUp: {
    unit: 'Count',
    statistic: 'Sum',
    per: 'Node',
    help: '1 from each node, each minute: the sum is how many run',
  },
  FailedLogins: { unit: 'Count', statistic: 'Sum', help: 'Requests that showed no good key, on all nodes' },
  RefusedJoins: {
    unit: 'Count',
    statistic: 'Sum',
    help: 'Instances that asked to join and were refused, on all nodes',
  },
  ThrottledRequests: { unit: 'Count', statistic: 'Sum', help: 'Requests that were answered 429, on all nodes' },
  RedisUp: { unit: 'Count', statistic: 'Maximum', help: '1 when the primary answers a node, else 0' },
  ReplicasInSync: {
    unit: 'Count',
    statistic: 'Minimum',
    help: 'Replicas of Redis that keep up with their primary; of a Cluster, those of the primary that has fewest',
  },
  BacklogJobs: {
    unit: 'Count',
    statistic: 'Maximum',
    per: 'Queue',
    over: 'sum',
    help: 'Jobs that wait and could run now',
  },
  BacklogAgeSeconds: {
    unit: 'Seconds',
    statistic: 'Maximum',
    per: 'Queue',
    over: 'max',
    help: 'How long the job has waited that has waited longest; 0 when none waits',
  },
  DeadJobs: {
    unit: 'Count',
    statistic: 'Maximum',
    per: 'Queue',
    over: 'sum',
    help: 'Jobs that failed for good and were not replayed',
  },
  Workers: { unit: 'Count', statistic: 'Maximum', per: 'Queue', over: 'sum', help: 'Workers that are alive' },
  WorkersDesired: {
    unit: 'Count',
    statistic: 'Maximum',
    per: 'Queue',
    over: 'sum',
    help: 'Workers that the autoscaler wants; absent without one',
  },
  FleetAtCeiling: {
    unit: 'Count',
    statistic: 'Maximum',
    per: 'Queue',
    over: 'max',
    help: '1 when jobs wait and the pool may have no more workers, else 0; absent without an autoscaler',
  },
} as const satisfies Record<string, Metric>

export type MetricName = keyof typeof metricTable

/** Figures of one queue, as far as they are known. */
export type QueueFigures = Partial<Record<PerQueue, number>>

type PerQueue = {
  [Name in MetricName]: (typeof metricTable)[Name] extends { per: 'Queue' } ? Name : never
}[MetricName]

/** One figure to be published. */
export interface DataPoint {
  readonly name: MetricName
  readonly value: number
  /** Beside Deployment. */
  readonly dimension?: { readonly name: 'Queue' | 'Node'; readonly value: string }
}

/** The points of each queue, and of the deployment as a whole. */
export function pointsOfQueues(byQueue: ReadonlyMap<string, QueueFigures>): DataPoint[] {
  const points: DataPoint[] = []
  const totals = new Map<PerQueue, number>()
  for (const [queue, figures] of byQueue) {
    for (const [name, value] of Object.entries(figures) as [PerQueue, number][]) {
      points.push({ name, value, dimension: { name: 'Queue', value: queue } })
      const before = totals.get(name)
      const total = metricTable[name].over === 'sum' ? (before ?? 0) + value : Math.max(before ?? value, value)
      totals.set(name, total)
    }
  }
  return [...points, ...[...totals].map(([name, value]) => ({ name, value }))]
}
