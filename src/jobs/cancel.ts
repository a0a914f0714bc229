/**
 * Cancelling. A cancelled job leaves BullMQ at once, also a running one: its lease is ended from here, its worker hears
 * of it by the open heartbeat and stops, and whatever it still reports is stale. What remains is a short record.
 */
import type { Job } from 'bullmq'
import { Problem } from '../errors.ts'
import type { Bell } from '../redis/bell.ts'
import { Script } from '../redis/script.ts'
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

/**
 * KEYS: cancelled, cancelledData, uncollectedDead. ARGV: when, Work ID, record. The same for a dead job, if its failure
 * was handed out to nobody; from then on it is handed out no more. Returns 0, and changes nothing, when it was: a job has
 * one outcome. One whose cancelling broke off has a record already.
 */
const keepOfDead = new Script<number>(
  'keep_cancelled_dead',
  `if redis.call('ZREM', KEYS[3], ARGV[2]) == 0 and redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return 0 end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1`,
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
    if (job.finishedOn !== undefined && (await job.isCompleted()))
      throw new Problem('job_finished', `The job ${workId} has succeeded already.`)
    const record = toRecord(job, workId)
    const isDead = job.finishedOn !== undefined && (await job.isFailed())
    if (!isDead) await keepRecord(queue, record)
    else if (!(await keepRecordOfDead(queue, record)))
      throw new Problem('job_finished', `The job ${workId} has failed, and its failure was handed out.`)
    const token = await queue.redis.get(`${queue.jobKey(workId)}:lock`)
    // Without a lease it may just have ended: then it is looked at again.
    const hasEnded = token === null && !isDead && ((await job.isCompleted()) || (await job.isFailed()))
    const removed =
      !hasEnded &&
      (token === null ? (await queue.backend.remove(workId, false)) === 1 : await endLease(queue, job, token))
    if (removed) {
      await dropFromIndexes(queue, workId, job.name)
      if (token !== null) bell.ring(`worker:${workerOfToken(token)}`)
      return record
    }
    await dropRecord(queue, workId)
  }
  throw new Problem('overloaded', `The job ${workId} changes hands too fast to be cancelled now.`)
}

/** Ends the running attempt under its own token, and the job with it. False when the lease moved meanwhile. */
async function endLease(queue: JobQueue, job: Job<JobData>, token: string): Promise<boolean> {
  try {
    await queue.backend.moveToFailed(job as never, 'cancelled', true, token, false)
    return true
  } catch (error) {
    if (isStale(error)) return false
    throw error
  }
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
})

async function keepRecord(queue: JobQueue, record: CancelledJob): Promise<void> {
  const { cancelled, cancelledData } = queue.keys
  await keep.run(queue.redis, [cancelled, cancelledData], [record.cancelledAt, record.workId, JSON.stringify(record)])
}

/** @returns false, and nothing is kept, when its failure was handed out */
async function keepRecordOfDead(queue: JobQueue, record: CancelledJob): Promise<boolean> {
  const { cancelled, cancelledData, uncollectedDead } = queue.keys
  const names = [cancelled, cancelledData, uncollectedDead]
  return (await keepOfDead.run(queue.redis, names, [record.cancelledAt, record.workId, JSON.stringify(record)])) === 1
}

const dropRecord = (queue: JobQueue, workId: string): Promise<unknown> => dropCancelled(queue, [workId])

/** Forgets records of cancelled jobs. */
export async function dropCancelled(queue: JobQueue, workIds: readonly string[]): Promise<void> {
  await dropRecords.run(queue.redis, [queue.keys.cancelled, queue.keys.cancelledData], workIds)
}

async function dropFromIndexes(queue: JobQueue, workId: string, type: string): Promise<void> {
  const { uncollected, uncollectedDead, leased, leases } = queue.keys
  await dropIndexes.run(queue.redis, [uncollected, uncollectedDead, leased, leases, queue.keys.lane(type)], [workId])
}
