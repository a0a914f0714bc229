/**
 * Retention: forgets jobs whose time is over, with their payloads and results, and sweeps blobs that
 * no job owns: those of uploads and attempts that came to nothing.
 * Collected results go after resultTtlMs, uncollected ones after uncollectedTtlMs, dead and cancelled ones after theirs.
 */
import type { Logger } from 'pino'
import type { PayloadStore } from '../payloads/payload-store.ts'
import { Script } from '../redis/script.ts'
import { dropCancelled } from './cancel.ts'
import { blobsOf, deleteBlobs } from './job-blobs.ts'
import type { JobQueue } from './job-queue.ts'
import type { Queues } from './queues.ts'
import { queueOfWorkId } from './work-id.ts'

export interface RetentionTimes {
  readonly resultTtlMs: number
  readonly uncollectedTtlMs: number
  readonly deadTtlMs: number
}

/** A blob younger than this may belong to a job that is just being submitted. */
const orphanGraceMs = 3_600_000
const batch = 500

/**
 * Succeeded jobs whose time is over. KEYS: completed, uncollected, leased. ARGV: finished before (collected), finished
 * before (uncollected), offset, count. Returns how many were looked at, then the Work IDs to forget.
 */
const expired = new Script<(string | number)[]>(
  'expired',
  `local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
local out = { #found / 2 }
for i = 1, #found, 2 do
  local id = found[i]
  local held = redis.call('ZSCORE', KEYS[2], id) or redis.call('ZSCORE', KEYS[3], id)
  if not held or tonumber(found[i + 1]) <= tonumber(ARGV[2]) then out[#out + 1] = id end
end
return out`,
)

export class Retention {
  readonly #queues: Queues
  readonly #store: PayloadStore
  readonly #times: RetentionTimes
  readonly #log: Logger

  constructor(queues: Queues, store: PayloadStore, times: RetentionTimes, log: Logger) {
    this.#queues = queues
    this.#store = store
    this.#times = times
    this.#log = log
  }

  /** One round over all queues. @returns how many jobs were forgotten */
  async forgetExpired(now: number): Promise<number> {
    let count = 0
    for (const queue of this.#queues.all()) {
      count += await this.#forgetSucceeded(queue, now)
      count += await this.#forgetDead(queue, now)
      count += await this.#forgetCancelled(queue, now)
    }
    if (count > 0) this.#log.info({ count }, 'expired jobs forgotten')
    return count
  }

  /** Deletes blobs whose job does not exist. @returns how many */
  async sweepBlobs(now: number): Promise<number> {
    const orphans: string[] = []
    for await (const key of this.#store.list(orphanGraceMs, now)) {
      const workId = key.slice(0, key.indexOf('/'))
      if (!(await this.#exists(workId))) orphans.push(key)
    }
    if (orphans.length === 0) return 0
    await this.#store.delete(orphans)
    this.#log.info({ count: orphans.length }, 'blobs without a job deleted')
    return orphans.length
  }

  async #forgetSucceeded(queue: JobQueue, now: number): Promise<number> {
    const { resultTtlMs, uncollectedTtlMs } = this.#times
    const { uncollected, leased } = queue.keys
    let count = 0
    for (let offset = 0; ; ) {
      const [looked, ...workIds] = await expired.run(
        queue.redis,
        [queue.bull.toKey('completed'), uncollected, leased],
        [now - Math.min(resultTtlMs, uncollectedTtlMs), now - uncollectedTtlMs, offset, batch],
      )
      await this.#forget(queue, workIds.map(String))
      count += workIds.length
      offset += Number(looked) - workIds.length
      if (Number(looked) < batch) return count
    }
  }

  async #forgetDead(queue: JobQueue, now: number): Promise<number> {
    for (let count = 0; ; ) {
      const workIds = await queue.redis.zrangebyscore(
        queue.bull.toKey('failed'),
        '-inf',
        now - this.#times.deadTtlMs,
        'LIMIT',
        0,
        batch,
      )
      await this.#forget(queue, workIds)
      count += workIds.length
      if (workIds.length < batch) return count
    }
  }

  async #forgetCancelled(queue: JobQueue, now: number): Promise<number> {
    const { cancelled } = queue.keys
    const workIds = await queue.redis.zrangebyscore(cancelled, '-inf', now - this.#times.resultTtlMs)
    for (let at = 0; at < workIds.length; at += batch) {
      const some = workIds.slice(at, at + batch)
      await dropCancelled(queue, some)
    }
    return workIds.length
  }

  async #forget(queue: JobQueue, workIds: readonly string[]): Promise<void> {
    if (workIds.length === 0) return
    const blobs = await blobsOf(queue, workIds)
    const removed = await Promise.all(workIds.map(workId => queue.backend.remove(workId, false)))
    const { uncollected, uncollectedDead, leased, leases } = queue.keys
    const pipeline = queue.redis.pipeline()
    for (const index of [uncollected, uncollectedDead, leased]) pipeline.zrem(index, ...workIds)
    pipeline.hdel(leases, ...workIds)
    await pipeline.exec()
    const keys = workIds.flatMap((workId, index) => (removed[index] === 1 ? (blobs.get(workId) ?? []) : []))
    await deleteBlobs(this.#store, keys, this.#log)
  }

  /** A queue that is not in the settings now may be there again tomorrow: its jobs count as existing. */
  async #exists(workId: string): Promise<boolean> {
    const name = queueOfWorkId(workId)
    if (name === undefined) return false
    const queue = this.#queues.find(name)
    return queue === undefined || (await queue.redis.exists(queue.jobKey(workId))) === 1
  }
}
