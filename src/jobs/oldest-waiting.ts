/**
 * How long the job has waited that has waited longest, in a few cheap reads: the heads of the lines, not all that stand in
 * them. In order of priority the first is looked at, and the first of the last priority, which is the one that starves.
 */
import type { JobQueue } from './job-queue.ts'

/** BullMQ scores a prioritised job with its priority × 2³² and a counter, a delayed one with its time in ms × 4096. */
const priorityUnit = 2 ** 32
const delayedUnit = 4096

/**
 * @param now in ms since the epoch
 * @returns since when it has waited, in ms since the epoch: since it was submitted, was due, or its last attempt began.
 * Undefined when nothing waits
 */
export async function oldestWaitingSince(queue: JobQueue, now: number): Promise<number | undefined> {
  const { redis, bull } = queue
  const prioritized = bull.toKey('prioritized')
  const [next, [, lastScore], [, dueScore], [first]] = await Promise.all([
    redis.lindex(bull.toKey('wait'), -1),
    redis.zrange(prioritized, '-1', '-1', 'WITHSCORES'),
    redis.zrange(bull.toKey('delayed'), '0', '0', 'WITHSCORES'),
    redis.zrange(prioritized, '0', '0'),
  ])
  const lowest = Math.floor(Number(lastScore ?? 0) / priorityUnit) * priorityUnit
  const [starving] =
    lastScore === undefined ? [] : await redis.zrangebyscore(prioritized, lowest, '+inf', 'LIMIT', 0, 1)
  const workIds = [next, first, starving].filter(workId => typeof workId === 'string')
  const times = await Promise.all([...new Set(workIds)].map(workId => waitingSince(queue, workId)))
  const dueAt = dueScore === undefined ? undefined : Math.floor(Number(dueScore) / delayedUnit)
  const all = [...times, dueAt].filter(time => time !== undefined && time <= now) as number[]
  return all.length === 0 ? undefined : Math.min(...all)
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
