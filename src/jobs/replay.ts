/** Replaying dead jobs: back to the line with all their attempts before them. */
import { Problem } from '../errors.ts'
import type { Bell } from '../redis/bell.ts'
import { isCancelled } from './cancel.ts'
import { isStale, type JobQueue } from './job-queue.ts'
import { jobNotFound } from './queues.ts'

/** @throws Problem job_not_found, job_not_dead */
export async function retryJob(queue: JobQueue, bell: Bell, workId: string): Promise<void> {
  const job = await queue.job(workId)
  if (job === undefined && (await isCancelled(queue, workId)))
    throw new Problem('job_cancelled', `The job ${workId} was cancelled, so there is nothing to retry.`)
  if (job === undefined) throw jobNotFound(workId)
  if (job.finishedOn === undefined || !(await job.isFailed())) throw notDead(workId)
  // First out of the index: were it still there when the job succeeds, its result would be handed out as a failure too.
  const { uncollectedDead, leased, leases } = queue.keys
  await queue.redis.multi().zrem(uncollectedDead, workId).zrem(leased, workId).hdel(leases, workId).exec()
  // Lost workers count anew as well; before it can be claimed again.
  await queue.redis.hdel(queue.jobKey(workId), 'lost')
  try {
    // Starts count on: each is told from all others by its number (lost-workers.ts).
    await job.retry('failed', { resetAttemptsMade: true })
  } catch (error) {
    if (isStale(error)) throw notDead(workId)
    throw error
  }
  bell.ring(`jobs:${queue.name}`)
  bell.ring('backlog')
}

/** Replays up to `limit` dead jobs, oldest first. @returns how many */
export async function retryAllDead(queue: JobQueue, bell: Bell, limit: number): Promise<number> {
  let count = 0
  for (const workId of await queue.redis.zrange(queue.bull.toKey('failed'), '0', `${limit - 1}`)) {
    try {
      await retryJob(queue, bell, workId)
      count += 1
    } catch (error) {
      // Somebody else replayed or cancelled it meanwhile.
      if (!(error instanceof Problem)) throw error
    }
  }
  return count
}

const notDead = (workId: string): Problem =>
  new Problem('job_not_dead', `The job ${workId} is not dead, so there is nothing to retry.`)
