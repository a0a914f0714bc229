/**
 * Leases several jobs in one call to Redis: BullMQ's own moveToActive, run until it finds no more, each job under a token
 * of its own.
 */
import { type JobJson, raw2NextJobData } from 'bullmq'
import type { RedisClient } from '../redis/connection.ts'
import { Script } from '../redis/script.ts'
import { bullScript } from './bull-batch.ts'
import type { JobQueue } from './job-queue.ts'

export interface Taken {
  readonly jobs: readonly { readonly job: JobJson; readonly token: string }[]
  /** When the next delayed job is due, in ms since the epoch; only when there was nothing to take. */
  readonly nextDelayedAt?: number
}

/** Jobs in one call: some milliseconds, so that others get their turn. */
export const maxTaken = 50

/** @param tokens one for each job that is wanted, at most maxTaken */
export async function takeMany(queue: JobQueue, workerId: string, tokens: readonly string[]): Promise<Taken> {
  const { wait, active, prioritized, events, stalled, limiter, delayed, paused, meta, pc, marker } = queue.bull.keys
  const keys = [wait, active, prioritized, events, stalled, limiter, delayed, paused, meta, pc, marker] as string[]
  const args = [queue.bullPrefix, Date.now(), queue.leaseMs, workerId, ...tokens]
  const replies = await scriptFor(queue.redis).run(queue.redis, keys, args)
  const jobs: { job: JobJson; token: string }[] = []
  for (const [index, reply] of replies.entries()) {
    const [job, workId, , nextDelayedAt] = raw2NextJobData(reply) as [(JobJson | null)?, unknown?, unknown?, unknown?]
    if (job) jobs.push({ job: withId(job, workId), token: tokens[index] as string })
    else if (jobs.length === 0 && nextDelayedAt) return { jobs, nextDelayedAt: Number(nextDelayedAt) }
  }
  return { jobs }
}

/** BullMQ hands a job out beside its id, not with it. */
export const withId = (job: JobJson, workId: unknown): JobJson => ({ ...job, id: String(workId) })

let script: Script<unknown[][]> | undefined

/** KEYS: those of moveToActive. ARGV: prefix of job keys, now, lease in ms, worker, then tokens. Ends at the first miss. */
function scriptFor(redis: RedisClient): Script<unknown[][]> {
  script ??= new Script<unknown[][]>(
    'take_many',
    `local function take(KEYS, ARGV)
${bullScript(redis, 'moveToActive')}
end
local out = {}
for i = 5, #ARGV do
  local options = { token = ARGV[i], lockDuration = tonumber(ARGV[3]), name = ARGV[4] }
  local result = take(KEYS, { ARGV[1], ARGV[2], cmsgpack.pack(options) })
  out[#out + 1] = result or { 0, 0, 0, 0 }
  if not result or not result[1] or result[1] == 0 then break end
end
return out`,
  )
  return script
}
