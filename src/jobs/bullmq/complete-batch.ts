/**
 * Finishes jobs that succeeded, many in one call to Redis: for each, one atomic step looks whether the token holds the
 * lease, adds the job to the index of uncollected results, runs BullMQ's own moveToFinished, and may lease the next job
 * of the worker's types. The order within the step is the one that would be right without it: an entry of the index
 * whose job is not finished is passed over, a finished job without an entry would be lost.
 */
import { type JobJson, raw2NextJobData } from 'bullmq'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import type { StoredContent } from '../job-data.ts'
import { bullScript } from './bull-batch.ts'
import { bullFields } from './bull-layout.ts'
import { type Claimant, withId } from './claim-batch.ts'
import type { JobQueue } from './job-queue.ts'
import { ownPrefix, sortedAtOnce, sortLua, takerLua } from './lanes.ts'

export interface Success {
  readonly workId: string
  readonly token: string
  readonly durationMs: number
  readonly value?: StoredContent
}

/** stale: the token does not hold the job, nothing was done. Else the next job, leased under the same token, if any. */
export type Finished = 'stale' | { readonly hadCheckpoint: boolean; readonly next?: JobJson }

/** Jobs in one call: some milliseconds, so that others get their turn. */
const chunk = 50
/** What BullMQ's moveToFinished takes: keys, of which the 12th is the job's, then arguments. */
const keyCount = 14
const argCount = 8

/**
 * @param nextCount how many next jobs to lease to the claimant, at most one for each job that succeeded
 * @returns one for each success, in order
 */
export async function finishMany(
  queue: JobQueue,
  successes: readonly Success[],
  claimant: Claimant,
  nextCount: number,
): Promise<Finished[]> {
  const parts: Promise<Finished[]>[] = []
  for (let at = 0; at < successes.length; at += chunk) {
    parts.push(finishChunk(queue, successes.slice(at, at + chunk), claimant, nextCount - at))
  }
  return (await Promise.all(parts)).flat()
}

async function finishChunk(
  queue: JobQueue,
  successes: readonly Success[],
  claimant: Claimant,
  nextCount: number,
): Promise<Finished[]> {
  const { workerId, types } = claimant
  const flat: (string | number | Buffer)[] = [queue.bullPrefix, ownPrefix(queue), Date.now(), queue.leaseMs]
  flat.push(workerId, Math.max(0, nextCount), types.length, ...types)
  let bullKeys: string[] = []
  for (const { workId, token, durationMs, value } of successes) {
    const job = { id: workId, opts: {} } as never
    const all = queue.backend.moveToCompletedArgs(job, JSON.stringify(value), false, token, false)
    bullKeys = all.slice(0, keyCount) as string[]
    flat.push(
      token,
      queue.jobKey(workId),
      Math.round(durationMs * 1000),
      ...(all.slice(keyCount, keyCount + argCount) as (string | Buffer)[]),
    )
  }
  const { uncollected, uncollectedDead, sequence, stats } = queue.keys
  const keys = [...bullKeys, uncollected, uncollectedDead, sequence, stats]
  const replies = await queue.writes.run(scriptFor(queue.redis), keys, flat)
  return replies.map(toFinished)
}

function toFinished([held, hadCheckpoint, result]: Reply): Finished {
  if (held === 0 || (typeof result === 'number' && result < 0)) return 'stale'
  const [next, workId] = Array.isArray(result) ? (raw2NextJobData(result) as [(JobJson | null)?, unknown?]) : []
  return { hadCheckpoint: hadCheckpoint === 1, ...(next && { next: withId(next, workId) }) }
}

type Reply = [held: number, hadCheckpoint?: number, result?: number | unknown[]]

let script: Script<Reply[]> | undefined

/**
 * KEYS: BullMQ's, uncollected, uncollectedDead, sequence, stats. ARGV: prefixes of BullMQ's keys and of ours, now,
 * lease in ms, worker, how many next jobs, number of types, types, then for each: token, key of the job, run time in
 * µs, BullMQ's. A run time counts for no longer than the lease was held, whatever the worker says.
 */
function scriptFor(redis: RedisClient): Script<Reply[]> {
  script ??= new Script<Reply[]>(
    'finish_many',
    `${sortLua}
${takerLua(bullScript(redis, 'moveToActive'))}
local function finish(KEYS, ARGV)
${bullScript(redis, 'moveToFinished')}
end
local out, done, busyUs, take, missing = {}, 0, 0, nil, tonumber(ARGV[6])
local firstSuccess = 8 + tonumber(ARGV[7])
for i = firstSuccess, #ARGV, ${argCount + 3} do
  local job = ARGV[i + 1]
  if redis.call('GET', job .. ':lock') == ARGV[i] then
    redis.call('ZADD', KEYS[15], redis.call('INCR', KEYS[17]), ARGV[i + 3])
    redis.call('ZREM', KEYS[16], ARGV[i + 3])
    local heldMs = tonumber(ARGV[3]) - tonumber(redis.call('HGET', job, '${bullFields.startedAt}') or ARGV[3])
    busyUs = busyUs + math.min(tonumber(ARGV[i + 2]), math.max(0, heldMs + 1) * 1000)
    local checkpoint = redis.call('HEXISTS', job, 'checkpoint')
    local keys = { unpack(KEYS, 1, ${keyCount}) }
    keys[12] = job
    local result = finish(keys, { unpack(ARGV, i + 3, i + ${argCount + 2}) })
    if missing > 0 and (type(result) ~= 'number' or result >= 0) then
      if not take then
        sort(ARGV[1], ARGV[2], ARGV[3], ${sortedAtOnce})
        take = taker(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], { unpack(ARGV, 8, firstSuccess - 1) })
      end
      local taken = take(ARGV[i])
      missing = taken and missing - 1 or 0
      result = taken or result
    end
    out[#out + 1] = { 1, checkpoint, result or 0 }
    done = done + 1
  else
    out[#out + 1] = { 0 }
  end
end
if done > 0 then
  redis.call('HINCRBY', KEYS[18], 'finished', done)
  redis.call('HINCRBY', KEYS[18], 'busyUs', string.format('%.0f', busyUs))
end
return out`,
    { whenFull: true },
  )
  return script
}
