/**
 * Retention: forgets jobs whose time is over, with their payloads and results, and sweeps blobs that
 * no job owns: those of uploads and attempts that came to nothing.
 * Collected results go after resultTtlMs, uncollected ones after uncollectedTtlMs, dead and cancelled ones after
 * theirs.
 */
import type { Logger } from 'pino'
import type { PayloadStore } from '../../payloads/payload-store.ts'
import { expired, forget, forgetCancelled, type Limits } from '../bullmq/forget.ts'
import type { JobQueue, Queues } from '../bullmq/job-queue.ts'
import { blobsOf, deleteBlobs } from '../job-blobs.ts'
import { queueOfWorkId } from '../work-id.ts'

export interface RetentionTimes {
  readonly resultTtlMs: number
  readonly uncollectedTtlMs: number
  readonly deadTtlMs: number
}

/** A blob younger than this may belong to a job that is just being submitted. */
const orphanGraceMs = 3_600_000
const batch = 500

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
    const limits = { before: now - Math.min(resultTtlMs, uncollectedTtlMs), beforeHeld: now - uncollectedTtlMs }
    return await this.#forgetAll(queue, 'completed', limits)
  }

  async #forgetDead(queue: JobQueue, now: number): Promise<number> {
    const before = now - this.#times.deadTtlMs
    return await this.#forgetAll(queue, 'failed', { before, beforeHeld: before })
  }

  async #forgetCancelled(queue: JobQueue, now: number): Promise<number> {
    for (let count = 0; ; ) {
      const some = await forgetCancelled(queue, now - this.#times.resultTtlMs, batch)
      count += some
      if (some < batch) return count
    }
  }

  async #forgetAll(queue: JobQueue, set: 'completed' | 'failed', limits: Limits): Promise<number> {
    let count = 0
    for (let offset = 0; ; ) {
      const { looked, workIds } = await expired(queue, set, limits, offset, batch)
      const blobs = workIds.length === 0 ? new Map<string, string[]>() : await blobsOf(queue, workIds)
      const forgotten = await forget(queue, set, limits, workIds)
      const keys = forgotten.flatMap(workId => blobs.get(workId) ?? [])
      await deleteBlobs(this.#store, keys, this.#log)
      count += forgotten.length
      offset += looked - forgotten.length
      if (looked < batch) return count
    }
  }

  /** A queue that is not in the settings now may be there again tomorrow: its jobs count as existing. */
  async #exists(workId: string): Promise<boolean> {
    const name = queueOfWorkId(workId)
    if (name === undefined) return false
    const queue = this.#queues.find(name)
    return queue === undefined || (await queue.redis.exists(queue.jobKey(workId))) === 1
  }
}
