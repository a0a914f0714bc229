/**
 * How long the job has waited that has waited longest, in a few cheap reads: the heads of the lanes, not all that stand
 * in them. In order of priority the first is looked at, and the first of the last priority, which is the one that
 * starves.
 */
import { bullKeys, dueTimeOf, priorityUnit } from '../bullmq/bull-layout.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import { sortWaiting } from '../bullmq/lanes.ts'

/** Lanes that are looked at. */
const maxLanes = 200

/**
 * @param now in ms since the epoch
 * @returns since when it has waited, in ms since the epoch: since it was submitted, was due, or its last attempt began.
 * Undefined when nothing waits
 */
export async function oldestWaitingSince(queue: JobQueue, now: number): Promise<number | undefined> {
  const { redis, bull } = queue
  await sortWaiting(queue)
  const [types, [, dueScore]] = await Promise.all([
    redis.smembers(queue.keys.lanes),
    redis.zrange(bull.toKey(bullKeys.delayed), '0', '0', 'WITHSCORES'),
  ])
  const workIds = (await Promise.all(types.slice(0, maxLanes).map(type => headsOf(queue, type)))).flat()
  const times = await Promise.all([...new Set(workIds)].map(workId => waitingSince(queue, workId)))
  const dueAt = dueScore === undefined ? undefined : dueTimeOf(Number(dueScore))
  const all = [...times, dueAt].filter(time => time !== undefined && time <= now) as number[]
  return all.length === 0 ? undefined : Math.min(...all)
}

/** Since when the next job of each type has waited, in ms since the epoch. */
export async function longestWaitingByType(queue: JobQueue): Promise<Map<string, number>> {
  const types = (await queue.redis.smembers(queue.keys.lanes)).slice(0, maxLanes)
  const since = await Promise.all(
    types.map(async type => {
      const [next] = await queue.redis.zrange(queue.keys.lane(type), '0', '0')
      return next === undefined ? undefined : await waitingSince(queue, next)
    }),
  )
  return new Map(types.flatMap((type, index) => (since[index] === undefined ? [] : [[type, since[index]]])))
}

async function headsOf({ redis, keys }: JobQueue, type: string): Promise<string[]> {
  const lane = keys.lane(type)
  const [[first], [, lastScore]] = await Promise.all([
    redis.zrange(lane, '0', '0'),
    redis.zrange(lane, '-1', '-1', 'WITHSCORES'),
  ])
  if (first === undefined || lastScore === undefined) return []
  const lowest = Math.floor(Number(lastScore) / priorityUnit) * priorityUnit
  if (lowest <= 0) return [first]
  const [starving] = await redis.zrangebyscore(lane, lowest, '+inf', 'LIMIT', 0, 1)
  return starving === undefined ? [first] : [first, starving]
}

/** Undefined when it was taken between the two reads. */
async function waitingSince(queue: JobQueue, workId: string): Promise<number | undefined> {
  const [timestamp, opts, processedOn] = await queue.redis.hmget(
    queue.jobKey(workId),
    'timestamp',
    'opts',
    'processedOn',
  )
  if (typeof timestamp !== 'string') return undefined
  const { delay = 0 } = JSON.parse(opts ?? '{}') as { delay?: number }
  return Math.max(Number(timestamp) + delay, Number(processedOn ?? 0))
}
