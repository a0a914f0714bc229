/**
 * Cancelling. A cancelled job leaves BullMQ at once, also a running one: its lease is ended from here, its worker hears
 * of it by the open heartbeat and stops, and whatever it still reports is stale. What remains is a short record.
 */
import type { Job } from 'bullmq'
import { Problem } from '../../errors.ts'
import type { Notifier } from '../../notifier.ts'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import type { JobData } from '../job-data.ts'
import { bullScript } from './bull-batch.ts'
import { bullFields, bullKeys, lockSuffix } from './bull-layout.ts'
import { type JobQueue, jobNotFound, workerOfToken } from './job-queue.ts'

/** What is kept of a cancelled job. Times in ms since the epoch. */
export interface CancelledJob {
  readonly workId: string
  readonly type: string
  readonly priority: number
  readonly attempts: number
  readonly attemptsMade: number
  readonly createdAt: number
  readonly startedAt?: number
  readonly cancelledAt: number
  readonly owner?: string
  /** What its Idempotency-Key stands for. */
  readonly fingerprint?: string
}

/** Throws when the caller may not cancel a job that was put in by this API key (undefined: by none). */
export type MayCancel = (owner: string | undefined) => void

type Removal = 'removed' | 'moved' | 'succeeded' | 'handed out'
const removals: Readonly<Record<number, Removal>> = { 1: 'removed', 0: 'moved', [-1]: 'succeeded', [-2]: 'handed out' }

let script: Script<number> | undefined

/**
 * Cancels a job in one step: were its state read before, it could end, be handed out, or be cancelled by somebody else
 * in between. A lease goes first, then BullMQ's own script removes the job. KEYS: cancelled, cancelledData,
 * uncollected, uncollectedDead, leased, leases, lane. ARGV: Work ID, when, record, attempts in the record, prefix of
 * BullMQ's keys, token of its lease or an empty string. Returns 1; or, and changes nothing, 0 when it is not as the
 * record and the token say, -1 when it has succeeded, -2 when it is dead and its failure was handed out.
 */
function scriptFor(redis: RedisClient): Script<number> {
  script ??= new Script<number>(
    'cancel',
    `local function remove(KEYS, ARGV)
${bullScript(redis, 'removeJob')}
end
local id, prefix, token = ARGV[1], ARGV[5], ARGV[6]
local job = prefix .. id
if redis.call('ZSCORE', prefix .. '${bullKeys.completed}', id) then return -1 end
if redis.call('EXISTS', job) == 0 then return 0 end
if (redis.call('HGET', job, '${bullFields.attempts}') or '0') ~= ARGV[4] then return 0 end
if (redis.call('GET', job .. '${lockSuffix}') or '') ~= token then return 0 end
local isDead = redis.call('ZSCORE', prefix .. '${bullKeys.failed}', id)
if isDead and not redis.call('ZSCORE', KEYS[4], id) then return -2 end
if token ~= '' then
  redis.call('DEL', job .. '${lockSuffix}')
  redis.call('SREM', prefix .. '${bullKeys.stalled}', id)
end
remove({ job, prefix .. 'repeat' }, { id, '0', prefix })
redis.call('ZADD', KEYS[1], ARGV[2], id)
redis.call('HSET', KEYS[2], id, ARGV[3])
for i = 3, 5 do redis.call('ZREM', KEYS[i], id) end
redis.call('HDEL', KEYS[6], id)
redis.call('ZREM', KEYS[7], id)
return 1`,
    { whenFull: true },
  )
  return script
}

/** A job that moves (is claimed, is given back) while it is cancelled is tried again this often. */
const maxTries = 20

export const isCancelled = async (queue: JobQueue, workId: string): Promise<boolean> =>
  (await queue.redis.hexists(queue.keys.cancelledData, workId)) === 1

export async function readCancelled(queue: JobQueue, workId: string): Promise<CancelledJob | undefined> {
  const text = await queue.redis.hget(queue.keys.cancelledData, workId)
  return text === null ? undefined : (JSON.parse(text) as CancelledJob)
}

/**
 * Cancels a job that has not succeeded, and whose failure was not handed out; cancelling twice is fine.
 * @throws Problem job_not_found, job_finished, and what mayCancel throws
 */
export async function cancelJob(
  queue: JobQueue,
  notifier: Notifier,
  workId: string,
  mayCancel: MayCancel,
): Promise<CancelledJob> {
  for (let tries = 0; tries < maxTries; tries += 1) {
    const job = await queue.job(workId)
    if (job === undefined) {
      const record = await readCancelled(queue, workId)
      if (record === undefined) throw jobNotFound(workId)
      mayCancel(record.owner)
      return record
    }
    mayCancel(job.data.owner)
    const record = toRecord(job, workId)
    const token = await queue.redis.get(`${queue.jobKey(workId)}${lockSuffix}`)
    const removal = await remove(queue, record, token ?? '')
    if (removal === 'succeeded') throw new Problem('job_finished', `The job ${workId} has succeeded already.`)
    if (removal === 'handed out')
      throw new Problem('job_finished', `The job ${workId} has failed, and its failure was handed out.`)
    if (removal === 'moved') continue
    if (token !== null) notifier.notify(`worker:${workerOfToken(token)}`)
    return record
  }
  throw new Problem('overloaded', `The job ${workId} changes hands too fast to be cancelled now.`)
}

/** 'moved' when the job is not as the record and the token say any more. */
async function remove(queue: JobQueue, record: CancelledJob, token: string): Promise<Removal> {
  const { workId, type, attemptsMade, cancelledAt } = record
  const { cancelled, cancelledData, uncollected, uncollectedDead, leased, leases, lane } = queue.keys
  const names = [cancelled, cancelledData, uncollected, uncollectedDead, leased, leases, lane(type)]
  const args = [workId, cancelledAt, JSON.stringify(record), attemptsMade, queue.bullPrefix, token]
  const reply = await scriptFor(queue.redis).run(queue.redis, names, args)
  return removals[reply] ?? 'moved'
}

const toRecord = (job: Job<JobData>, workId: string): CancelledJob => ({
  workId,
  type: job.name,
  priority: job.priority,
  attempts: job.opts.attempts ?? 1,
  attemptsMade: job.attemptsMade,
  createdAt: job.timestamp,
  ...(job.processedOn !== undefined && { startedAt: job.processedOn }),
  cancelledAt: Date.now(),
  ...(job.data.owner !== undefined && { owner: job.data.owner }),
  ...(job.data.fingerprint !== undefined && { fingerprint: job.data.fingerprint }),
})
