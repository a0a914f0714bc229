/**
 * Cancelling. A cancelled job leaves BullMQ at once, also a running one: its lease is ended from here, its worker hears
 * of it by the open heartbeat and stops, and whatever it still reports is stale. What remains is a short record.
 */
import type { Job } from 'bullmq'
import { Problem } from '../errors.ts'
import type { Bell } from '../redis/bell.ts'
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
 * Cancels a job that has not succeeded; cancelling twice is fine.
 * @throws Problem job_not_found, job_finished
 */
export async function cancelJob(queue: JobQueue, bell: Bell, workId: string): Promise<CancelledJob> {
  for (let tries = 0; tries < maxTries; tries += 1) {
    const job = await queue.job(workId)
    if (job === undefined) {
      const record = await readCancelled(queue, workId)
      if (record === undefined) throw jobNotFound(workId)
      return record
    }
    if (job.finishedOn !== undefined && (await job.isCompleted()))
      throw new Problem('job_finished', `The job ${workId} has succeeded already.`)
    const record = toRecord(job, workId)
    await keepRecord(queue, record)
    const token = await queue.redis.get(`${queue.jobKey(workId)}:lock`)
    // Without a lease it may just have succeeded: then it is looked at again.
    const succeeded = token === null && (await job.isCompleted())
    const removed =
      !succeeded &&
      (token === null ? (await queue.backend.remove(workId, false)) === 1 : await endLease(queue, job, token))
    if (removed) {
      await dropFromIndexes(queue, workId)
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
})

async function keepRecord(queue: JobQueue, record: CancelledJob): Promise<void> {
  await queue.redis
    .multi()
    .zadd(queue.keys.cancelled, record.cancelledAt, record.workId)
    .hset(queue.keys.cancelledData, record.workId, JSON.stringify(record))
    .exec()
}

async function dropRecord(queue: JobQueue, workId: string): Promise<void> {
  await queue.redis.multi().zrem(queue.keys.cancelled, workId).hdel(queue.keys.cancelledData, workId).exec()
}

async function dropFromIndexes(queue: JobQueue, workId: string): Promise<void> {
  const { uncollected, uncollectedDead, leased, leases } = queue.keys
  await queue.redis
    .multi()
    .zrem(uncollected, workId)
    .zrem(uncollectedDead, workId)
    .zrem(leased, workId)
    .hdel(leases, workId)
    .exec()
}
