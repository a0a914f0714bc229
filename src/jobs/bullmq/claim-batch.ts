/**
 * Leases several jobs in one call to Redis: BullMQ's own moveToActive on the lanes of the worker's types, run until it
 * finds no more, each job under a token of its own.
 */
import { type JobJson, raw2NextJobData } from 'bullmq'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import { bullScript } from './bull-batch.ts'
import { delayedUnit } from './bull-layout.ts'
import type { JobQueue } from './job-queue.ts'
import { ownPrefix, sortedAtOnce, sortLua, takerLua } from './lanes.ts'

export interface Taken {
  readonly jobs: readonly { readonly job: JobJson; readonly token: string }[]
  /** When the next delayed job is due, in ms since the epoch; only when there was nothing to take. */
  readonly nextDelayedAt?: number
}

export interface Claimant {
  readonly workerId: string
  /** It is given jobs of these types only. */
  readonly types: readonly string[]
}

/** Jobs in one call: some milliseconds, so that others get their turn. */
export const maxTaken = 50

/** @param tokens one for each job that is wanted, at most maxTaken */
export async function takeMany(
  queue: JobQueue,
  { workerId, types }: Claimant,
  tokens: readonly string[],
): Promise<Taken> {
  const args = [queue.bullPrefix, ownPrefix(queue), Date.now(), queue.leaseMs, workerId, types.length]
  const [replies, nextDelayedAt] = await scriptFor(queue.redis).run(
    queue.redis,
    [queue.keys.lanes],
    [...args, ...types, ...tokens],
  )
  const jobs: { job: JobJson; token: string }[] = []
  for (const [index, reply] of replies.entries()) {
    const [job, workId] = raw2NextJobData(reply) as [(JobJson | null)?, unknown?]
    if (job) jobs.push({ job: withId(job, workId), token: tokens[index] as string })
  }
  return jobs.length === 0 && nextDelayedAt !== undefined
    ? { jobs, nextDelayedAt: Number(nextDelayedAt) / delayedUnit }
    : { jobs }
}

/** BullMQ hands a job out beside its id, not with it. */
export const withId = (job: JobJson, workId: unknown): JobJson => ({ ...job, id: String(workId) })

type Reply = [jobs: unknown[][], nextDelayedScore?: string]

let script: Script<Reply> | undefined

/**
 * KEYS: lanes. ARGV: prefixes of BullMQ's keys and of ours, now, lease in ms, worker, number of types, types, tokens.
 */
function scriptFor(redis: RedisClient): Script<Reply> {
  script ??= new Script<Reply>(
    'take_many',
    `${sortLua}
${takerLua(bullScript(redis, 'moveToActive'))}
local bull, own, now, firstToken = ARGV[1], ARGV[2], ARGV[3], 7 + tonumber(ARGV[6])
sort(bull, own, now, ${sortedAtOnce})
local take = taker(bull, own, now, ARGV[4], ARGV[5], { unpack(ARGV, 7, firstToken - 1) })
local out = {}
for i = firstToken, #ARGV do
  local taken = take(ARGV[i])
  if not taken then break end
  out[#out + 1] = taken
end
if #out > 0 then return { out } end
return { out, redis.call('ZRANGE', bull .. 'delayed', 0, 0, 'WITHSCORES')[2] }`,
    { whenFull: true },
  )
  return script
}
