/**
 * Forgetting jobs whose time is over, each in one atomic step: whether it is over is looked at in the step that removes
 * the job. Between a look and a removal the job could be replayed, or be made anew under its key, and the new one be
 * removed.
 */
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import { bullScript } from './bull-batch.ts'
import { bullKeys } from './bull-layout.ts'
import type { JobQueue } from './job-queue.ts'

/** Jobs that ended at these times or before, in ms since the epoch, are forgotten. */
export interface Limits {
  readonly before: number
  /** Those whose result is not collected. */
  readonly beforeHeld: number
}

/** Jobs in one call: some milliseconds, so that others get their turn. */
const chunk = 50

/** Lua: whether the time of a job is over. KEYS: set, uncollected, leased. ARGV: before, beforeHeld. */
const isOverLua = `local function isOver(id, endedAt)
  local held = redis.call('ZSCORE', KEYS[2], id) or redis.call('ZSCORE', KEYS[3], id)
  return tonumber(endedAt) <= tonumber(held and ARGV[2] or ARGV[1])
end
`

/** KEYS and ARGV: as for isOver, then offset, count. Returns how many were looked at, then the Work IDs to forget. */
const expiredScript = new Script<(string | number)[]>(
  'expired',
  `${isOverLua}local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
local out = { #found / 2 }
for i = 1, #found, 2 do
  if isOver(found[i], found[i + 1]) then out[#out + 1] = found[i] end
end
return out`,
)

let forgetScript: Script<string[]> | undefined

/**
 * KEYS: as for isOver, then uncollectedDead, leases. ARGV: as for isOver, then the prefix of BullMQ's keys, Work IDs.
 * Returns those that were forgotten.
 */
function scriptFor(redis: RedisClient): Script<string[]> {
  forgetScript ??= new Script<string[]>(
    'forget',
    `local function remove(KEYS, ARGV)
${bullScript(redis, 'removeJob')}
end
${isOverLua}local prefix, out = ARGV[3], {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local endedAt = redis.call('ZSCORE', KEYS[1], id)
  if endedAt and isOver(id, endedAt) and remove({ prefix .. id, prefix .. 'repeat' }, { id, '0', prefix }) == 1 then
    for key = 2, 4 do redis.call('ZREM', KEYS[key], id) end
    redis.call('HDEL', KEYS[5], id)
    out[#out + 1] = id
  end
end
return out`,
    { whenFull: true },
  )
  return forgetScript
}

/** KEYS: cancelled, cancelledData. ARGV: cancelled before, count. Returns how many records were dropped. */
const forgetCancelledScript = new Script<number>(
  'forget_cancelled',
  `local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
if #ids == 0 then return 0 end
redis.call('ZREM', KEYS[1], unpack(ids))
redis.call('HDEL', KEYS[2], unpack(ids))
return #ids`,
  { whenFull: true },
)

type EndedSet = 'completed' | 'failed'

const keysFor = (queue: JobQueue, set: EndedSet): string[] => {
  const { uncollected, uncollectedDead, leased, leases } = queue.keys
  return [queue.bull.toKey(bullKeys[set]), uncollected, leased, uncollectedDead, leases]
}

/** Looks at ended jobs, oldest first. @returns how many were looked at, and of these the ones whose time is over */
export async function expired(
  queue: JobQueue,
  set: EndedSet,
  { before, beforeHeld }: Limits,
  offset: number,
  count: number,
): Promise<{ looked: number; workIds: string[] }> {
  const args = [before, beforeHeld, offset, count]
  const [looked, ...workIds] = await expiredScript.run(queue.redis, keysFor(queue, set), args)
  return { looked: Number(looked), workIds: workIds.map(String) }
}

/** Removes jobs and what is beside them, if they ended so and their time is over. @returns those that were removed */
export async function forget(
  queue: JobQueue,
  set: EndedSet,
  { before, beforeHeld }: Limits,
  workIds: readonly string[],
): Promise<string[]> {
  const parts: Promise<string[]>[] = []
  for (let at = 0; at < workIds.length; at += chunk) {
    const args = [before, beforeHeld, queue.bullPrefix, ...workIds.slice(at, at + chunk)]
    parts.push(scriptFor(queue.redis).run(queue.redis, keysFor(queue, set), args))
  }
  return (await Promise.all(parts)).flat()
}

/** Drops records of jobs that were cancelled at this time or before, at most `count`. @returns how many */
export async function forgetCancelled(queue: JobQueue, before: number, count: number): Promise<number> {
  const { cancelled, cancelledData } = queue.keys
  return await forgetCancelledScript.run(queue.redis, [cancelled, cancelledData], [before, count])
}
