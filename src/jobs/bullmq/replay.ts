/** Replaying dead jobs: back to the line with all their attempts before them. */
import { Problem } from '../../errors.ts'
import type { Notifier } from '../../notifier.ts'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import { bullScript } from './bull-batch.ts'
import { isCancelled } from './cancel.ts'
import { type JobQueue, jobNotFound } from './job-queue.ts'

let script: Script<number> | undefined

/**
 * Replays a dead job in one step: were it taken out of the indexes apart from that, another replay could have run in
 * between, and the lease of its result be taken away; or the job be left dead and in no index. The evidence of lost
 * workers goes, so they count anew. Starts count on: each is told from all others by its number (lost-workers.ts).
 * KEYS: BullMQ's for reprocessJob, uncollectedDead, leased, leases. ARGV: Work ID. Returns 1; or 0, and changes
 * nothing, when the job is not dead.
 */
function scriptFor(redis: RedisClient): Script<number> {
  script ??= new Script<number>(
    'replay',
    `local function reprocess(KEYS, ARGV)
${bullScript(redis, 'reprocessJob')}
end
local id = ARGV[1]
if not redis.call('ZSCORE', KEYS[3], id) then return 0 end
if reprocess(KEYS, { id, 'LPUSH', 'failedReason', 'failed', '1', '0' }) ~= 1 then return 0 end
redis.call('HDEL', KEYS[1], 'lost')
redis.call('ZREM', KEYS[10], id)
redis.call('ZREM', KEYS[11], id)
redis.call('HDEL', KEYS[12], id)
return 1`,
    { whenFull: true },
  )
  return script
}

/** @throws Problem job_not_found, job_not_dead */
export async function retryJob(queue: JobQueue, notifier: Notifier, workId: string): Promise<void> {
  const { uncollectedDead, leased, leases } = queue.keys
  const bullNames = ['events', 'failed', 'wait', 'meta', 'active', 'marker', 'prioritized', 'pc']
  const keys = [queue.jobKey(workId), ...bullNames.map(name => queue.bull.toKey(name)), uncollectedDead, leased, leases]
  if ((await scriptFor(queue.redis).run(queue.redis, keys, [workId])) === 0) {
    if (await isCancelled(queue, workId))
      throw new Problem('job_cancelled', `The job ${workId} was cancelled, so there is nothing to retry.`)
    if ((await queue.redis.exists(queue.jobKey(workId))) === 0) throw jobNotFound(workId)
    throw new Problem('job_not_dead', `The job ${workId} is not dead, so there is nothing to retry.`)
  }
  notifier.notify(`jobs:${queue.name}`)
  notifier.notify('backlog')
}

/** Replays up to `limit` dead jobs, oldest first. @returns how many */
export async function retryAllDead(queue: JobQueue, notifier: Notifier, limit: number): Promise<number> {
  let count = 0
  for (const workId of await queue.redis.zrange(queue.bull.toKey('failed'), '0', `${limit - 1}`)) {
    try {
      await retryJob(queue, notifier, workId)
      count += 1
    } catch (error) {
      // Somebody else replayed or cancelled it meanwhile.
      if (!(error instanceof Problem)) throw error
    }
  }
  return count
}
