/**
 * Reads what is published, in a few cheap calls. What cannot be read is left out, and the rest is published all the
 * same: that a figure is missing is a sign of its own.
 */
import type { PoolStatus } from '../fleet/fleet.ts'
import { countInSync, type RedisInfo } from '../redis/inspect/info.ts'
import type { RefusalName } from '../refusal-counts.ts'
import { within } from '../within.ts'
import { type DataPoint, pointsOfQueues, type QueueFigures } from './metric-table.ts'

/** What the readings need of the rest of a node. */
export interface MetricSources {
  /** Who this node is among the others. */
  readonly node: string
  /** Rejects when Redis does not answer. */
  ping(): Promise<unknown>
  /** INFO replication of each server that holds keys. */
  replication(): Promise<RedisInfo[]>
  queueNames(): string[]
  /** `oldestSince` is undefined when nothing waits; in ms since the epoch. */
  backlog(queue: string, now: number): Promise<{ waiting: number; dead: number; oldestSince: number | undefined }>
  pools(): Promise<PoolStatus[]>
  /** Since it was last asked. */
  refusals(): Record<RefusalName, number>
}

const readMs = 5000
/** An autoscaler decides each second or so: what is older than this is nobody's wish any more. */
const staleDecisionMs = 300_000

/**
 * @param now in ms since the epoch
 * @param onFault hears what could not be read, and why
 */
export async function readPoints(
  sources: MetricSources,
  now: number,
  onFault: (what: string, error: unknown) => void,
): Promise<DataPoint[]> {
  const orNothing = async <T>(what: string, reading: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await within(readMs, what, reading())
    } catch (error) {
      onFault(what, error)
      return undefined
    }
  }
  const isUp = (await orNothing('Redis (ping)', async () => (await sources.ping()) !== undefined)) !== undefined
  const points: DataPoint[] = [
    { name: 'NodeUp', value: 1 },
    { name: 'NodeUp', value: 1, dimension: { name: 'Node', value: sources.node } },
    { name: 'RedisUp', value: isUp ? 1 : 0 },
    ...Object.entries(sources.refusals()).map(([name, value]) => ({ name: name as RefusalName, value })),
  ]
  if (!isUp) return points
  const [replication, pools, ...backlogs] = await Promise.all([
    orNothing('Redis (replication)', () => sources.replication()),
    orNothing('Redis (fleet)', () => sources.pools()),
    ...sources.queueNames().map(async queue => {
      const backlog = await orNothing(`Redis (queue ${queue})`, () => sources.backlog(queue, now))
      return [queue, backlog] as const
    }),
  ])
  if (replication !== undefined && replication.length > 0)
    points.push({ name: 'ReplicasInSync', value: Math.min(...replication.map(countInSync)) })
  const byQueue = new Map<string, QueueFigures>()
  for (const [queue, backlog] of backlogs) {
    const pool = pools?.find(status => status.queue === queue)
    byQueue.set(queue, {
      ...(backlog !== undefined && {
        BacklogJobs: backlog.waiting,
        BacklogAgeSeconds: backlog.oldestSince === undefined ? 0 : Math.max(0, now - backlog.oldestSince) / 1000,
        DeadJobs: backlog.dead,
      }),
      ...(pool !== undefined && poolFigures(pool, backlog?.waiting ?? 0, now)),
    })
  }
  return [...points, ...pointsOfQueues(byQueue)]
}

function poolFigures({ workers, desired, max, decidedAt = 0 }: PoolStatus, waiting: number, now: number): QueueFigures {
  const Workers = workers.length
  if (desired === undefined || now - decidedAt > staleDecisionMs) return { Workers }
  return { Workers, WorkersDesired: desired, FleetAtCeiling: desired >= max && waiting > 0 ? 1 : 0 }
}
