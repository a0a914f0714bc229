/**
 * Cancelling. A cancelled job leaves BullMQ at once, also a running one: its lease is ended from here, its worker hears
 * of it by the open heartbeat and stops, and whatever it still reports is stale. What remains is a short record.
 */
import type { Job } from 'bullmq'
import { Problem } from '../errors.ts'
import type { Bell } from '../redis/bell.ts'
import type { RedisClient } from '../redis/connection.ts'
import { Script } from '../redis/script.ts'
import { bullScript } from './bull-batch.ts'
import { bullFields, bullKeys, lockSuffix } from './bull-layout.ts'
import type { JobData } from './job-data.ts'
import { isStale, type JobQueue, workerOfToken } from './job-queue.ts'
import { jobNotFound } from './queues.ts'

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

/** KEYS: cancelled, cancelledData. ARGV: when, Work ID, record. A short record takes the place of the job. */
const keep = new Script<number>(
  'keep_cancelled',
  `redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])`,
  { whenFull: true },
)

/** Scripts rather than transactions: a full Redis takes no transaction, not even to delete. KEYS: cancelled, cancelledData. ARGV: Work IDs. */
const dropRecords = new Script<number>(
  'drop_cancelled',
  `redis.call('ZREM', KEYS[1], unpack(ARGV))
return redis.call('HDEL', KEYS[2], unpack(ARGV))`,
)

/** KEYS: three indexes, leases, lane. ARGV: Work ID. */
const dropIndexes = new Script<number>(
  'drop_from_indexes',
  `for i = 1, 3 do redis.call('ZREM', KEYS[i], ARGV[1]) end
redis.call('ZREM', KEYS[5], ARGV[1])
return redis.call('HDEL', KEYS[4], ARGV[1])`,
)

type Removal = 'removed' | 'moved' | 'succeeded' | 'handed out'
const removals: Readonly<Record<number, Removal>> = { 1: 'removed', 0: 'moved', [-1]: 'succeeded', [-2]: 'handed out' }

let unleased: Script<number> | undefined

/**
 * Cancels a job that nobody runs, in one step: were its state read before, it could end, and be handed out, in between.
 * BullMQ's own script removes it. KEYS: cancelled, cancelledData, uncollected, uncollectedDead, leased, leases, lane. ARGV:
 * Work ID, when, record, attempts in the record, prefix of BullMQ's keys.
 * Returns 1; or, and changes nothing, 0 when it is not as the record says, -1 when it has succeeded, -2 when it is dead and
 * its failure was handed out.
 */
function unleasedScript(redis: RedisClient): Script<number> {
  unleased ??= new Script<number>(
    'cancel_unleased',
    `local function remove(KEYS, ARGV)
${bullScript(redis, 'removeJob')}
end
local id, prefix = ARGV[1], ARGV[5]
local job = prefix .. id
if redis.call('ZSCORE', prefix .. '${bullKeys.completed}', id) then return -1 end
if redis.call('EXISTS', job) == 0 then return 0 end
if (redis.call('HGET', job, '${bullFields.attempts}') or '0') ~= ARGV[4] then return 0 end
local isDead = redis.call('ZSCORE', prefix .. '${bullKeys.failed}', id)
if isDead and not redis.call('ZSCORE', KEYS[4], id) then return -2 end
if remove({ job, prefix .. 'repeat' }, { id, '0', prefix }) ~= 1 then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], id)
redis.call('HSET', KEYS[2], id, ARGV[3])
for i = 3, 5 do redis.call('ZREM', KEYS[i], id) end
redis.call('HDEL', KEYS[6], id)
redis.call('ZREM', KEYS[7], id)
return 1`,
    { whenFull: true },
  )
  return unleased
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
  bell: Bell,
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
    const removal = token === null ? await cancelUnleased(queue, record) : await cancelLeased(queue, job, record, token)
    if (removal === 'succeeded') throw new Problem('job_finished', `The job ${workId} has succeeded already.`)
    if (removal === 'handed out')
      throw new Problem('job_finished', `The job ${workId} has failed, and its failure was handed out.`)
    if (removal === 'moved') continue
    if (token !== null) bell.ring(`worker:${workerOfToken(token)}`)
    return record
  }
  throw new Problem('overloaded', `The job ${workId} changes hands too fast to be cancelled now.`)
}

async function cancelUnleased(queue: JobQueue, record: CancelledJob): Promise<Removal> {
  const { workId, type, attemptsMade, cancelledAt } = record
  const { cancelled, cancelledData, uncollected, uncollectedDead, leased, leases, lane } = queue.keys
  const names = [cancelled, cancelledData, uncollected, uncollectedDead, leased, leases, lane(type)]
  const args = [workId, cancelledAt, JSON.stringify(record), attemptsMade, queue.bullPrefix]
  const reply = await unleasedScript(queue.redis).run(queue.redis, names, args)
  return removals[reply] ?? 'moved'
}

/** Ends the running attempt under its own token, and the job with it. 'moved' when the lease did meanwhile. */
async function cancelLeased(queue: JobQueue, job: Job<JobData>, record: CancelledJob, token: string): Promise<Removal> {
  await keepRecord(queue, record)
  try {
    await queue.backend.moveToFailed(job as never, 'cancelled', true, token, false)
  } catch (error) {
    if (!isStale(error)) throw error
    await dropCancelled(queue, [record.workId])
    return 'moved'
  }
  await dropFromIndexes(queue, record.workId, job.name)
  return 'removed'
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

async function keepRecord(queue: JobQueue, record: CancelledJob): Promise<void> {
  const { cancelled, cancelledData } = queue.keys
  await keep.run(queue.redis, [cancelled, cancelledData], [record.cancelledAt, record.workId, JSON.stringify(record)])
}

/** Forgets records of cancelled jobs. */
export async function dropCancelled(queue: JobQueue, workIds: readonly string[]): Promise<void> {
  await dropRecords.run(queue.redis, [queue.keys.cancelled, queue.keys.cancelledData], workIds)
}

async function dropFromIndexes(queue: JobQueue, workId: string, type: string): Promise<void> {
  const { uncollected, uncollectedDead, leased, leases } = queue.keys
  await dropIndexes.run(queue.redis, [uncollected, uncollectedDead, leased, leases, queue.keys.lane(type)], [workId])
}
