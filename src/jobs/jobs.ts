/**
 * The life of a job, all of it: what the API calls and what runs behind it. One place lists the parts of each queue and
 * the loops, started and stopped together.
 */
import type { Logger } from 'pino'
import { Loop } from '../loop.ts'
import type { Notifier } from '../notifier.ts'
import type { PayloadStore } from '../payloads/payload-store.ts'
import type { RedisClient } from '../redis/connect/connection.ts'
import type { DurableWrites } from '../redis/writes/durable-writes.ts'
import type { Settings } from '../settings/settings.ts'
import { Control, type QueueCounts, type QueueLoad } from './admin/control.ts'
import { type JobPage, type ListQuery, listJobs } from './admin/listing.ts'
import { Retention } from './admin/retention.ts'
import { type CancelledJob, cancelJob, type MayCancel } from './bullmq/cancel.ts'
import { type JobQueue, Queues } from './bullmq/job-queue.ts'
import { sortWaiting } from './bullmq/lanes.ts'
import { retryAllDead, retryJob } from './bullmq/replay.ts'
import { Results } from './collect/results.ts'
import { blobsOf, deleteBlobs } from './job-blobs.ts'
import { AttemptLog } from './run/attempt-log.ts'
import { Checkpoints } from './run/checkpoints.ts'
import { Claims } from './run/claims.ts'
import { Completions } from './run/completions.ts'
import { LeaseLimit } from './run/lease-limit.ts'
import { Leases } from './run/leases.ts'
import { MemoryGuard, placesOf } from './submit/memory-guard.ts'
import { Submitter } from './submit/submit.ts'

/** The parts that work on one queue. */
export interface QueueParts {
  readonly queue: JobQueue
  readonly submitter: Submitter
  readonly claims: Claims
  readonly completions: Completions
  readonly checkpoints: Checkpoints
  readonly leases: Leases
  readonly results: Results
  readonly control: Control
}

export interface JobsOptions {
  readonly settings: Settings
  readonly redis: RedisClient
  /** How writes are acknowledged; left out: once the primary has them. */
  readonly writes?: DurableWrites
  readonly notifier: Notifier
  readonly store: PayloadStore
  readonly log: Logger
}

/** How often the leases of vanished workers are looked for. */
const recoverIntervalMs = 2000
const retentionIntervalMs = 30_000
const sweepIntervalMs = 3_600_000

export class Jobs {
  readonly queues: Queues
  readonly memoryGuard: MemoryGuard
  readonly retention: Retention
  readonly #parts = new Map<string, QueueParts>()
  readonly #notifier: Notifier
  readonly #store: PayloadStore
  readonly #log: Logger
  readonly #loops: Loop[]
  readonly #attemptLog: AttemptLog

  constructor({ settings, redis, writes, notifier, store, log }: JobsOptions) {
    this.#notifier = notifier
    this.#store = store
    this.#log = log
    this.queues = new Queues(Object.keys(settings.pools), redis, settings.leaseMs, writes)
    this.#attemptLog = new AttemptLog(log)
    const context = { settings, notifier, store, log, attemptLog: this.#attemptLog }
    for (const queue of this.queues.all()) this.#parts.set(queue.name, makeParts(queue, context))
    this.memoryGuard = new MemoryGuard({ redis, log, ...placesOf(settings) })
    this.retention = new Retention(this.queues, store, settings, log)
    const recover = async (): Promise<void> => {
      for (const { queue, leases } of this.#parts.values()) {
        const workIds = await leases.recoverLost()
        // Also what a node of an older version puts into BullMQ's lists.
        await sortWaiting(queue)
        if (workIds.length > 0)
          log.warn({ queue: queue.name, count: workIds.length }, 'leases ran out; jobs are back in the queue')
      }
    }
    this.#loops = [
      this.memoryGuard.loop,
      new Loop({
        name: 'recovery of lost leases',
        intervalMs: Math.min(recoverIntervalMs, settings.leaseMs / 2),
        run: recover,
        log,
      }),
      new Loop({
        name: 'retention',
        intervalMs: retentionIntervalMs,
        run: () => this.retention.forgetExpired(Date.now()),
        log,
      }),
      new Loop({
        name: 'sweep of blobs',
        intervalMs: sweepIntervalMs,
        run: () => this.retention.sweepBlobs(Date.now()),
        log,
      }),
    ]
  }

  async start(): Promise<void> {
    for (const { queue, control } of this.#parts.values()) {
      await queue.bull.waitUntilReady()
      await sortWaiting(queue)
      await control.start()
    }
    for (const loop of this.#loops) loop.start()
  }

  /** Ends waiting claims, then the loops. */
  async stop(): Promise<void> {
    for (const { claims } of this.#parts.values()) claims.close()
    await Promise.all(this.#loops.map(loop => loop.stop()))
    await Promise.all([...this.#parts.values()].map(({ control }) => control.stop()))
    this.#attemptLog.close()
    await this.queues.close()
  }

  /** @throws Problem queue_unknown */
  of(queue: string): QueueParts {
    return this.#parts.get(this.queues.get(queue).name) as QueueParts
  }

  /** @throws Problem job_not_found when no queue here can have this job */
  ofWorkId(workId: string): QueueParts {
    return this.#parts.get(this.queues.ofWorkId(workId).name) as QueueParts
  }

  async cancel(workId: string, mayCancel: MayCancel): Promise<CancelledJob> {
    const queue = this.queues.ofWorkId(workId)
    const blobs = await blobsOf(queue, [workId])
    const cancelled = await queue.confirm(() => cancelJob(queue, this.#notifier, workId, mayCancel))
    await deleteBlobs(this.#store, blobs.get(workId) ?? [], this.#log)
    return cancelled
  }

  async retry(workId: string): Promise<void> {
    const queue = this.queues.ofWorkId(workId)
    await queue.confirm(() => retryJob(queue, this.#notifier, workId))
  }

  async retryAllDead(name: string, limit: number): Promise<number> {
    const queue = this.queues.get(name)
    return await queue.confirm(() => retryAllDead(queue, this.#notifier, limit))
  }

  async list(queue: string | undefined, query: ListQuery): Promise<JobPage> {
    return await listJobs(queue === undefined ? this.queues.all() : [this.queues.get(queue)], query)
  }

  /** Counts of every queue, by its name. */
  async counts(): Promise<Map<string, QueueCounts>> {
    const entries = [...this.#parts].map(async ([name, { control }]) => [name, await control.counts()] as const)
    return new Map(await Promise.all(entries))
  }

  // What the fleet asks of the queues.

  async load(queue: string, dueWithinMs: number, types?: readonly string[]): Promise<QueueLoad> {
    return await this.of(queue).control.load(dueWithinMs, types)
  }

  async leasesByWorker(queue: string): Promise<Map<string, number>> {
    return await this.of(queue).leases.countByWorker()
  }

  async returnLeasesOf(queue: string, workerId: string, wasLost: boolean): Promise<number> {
    return await this.of(queue).leases.returnAllOf(workerId, wasLost)
  }
}

interface PartsContext {
  readonly settings: Settings
  readonly notifier: Notifier
  readonly store: PayloadStore
  readonly log: Logger
  readonly attemptLog: AttemptLog
}

function makeParts(queue: JobQueue, { settings, notifier, store, log, attemptLog }: PartsContext): QueueParts {
  const limits = { ...settings, ...settings.runs[queue.name] }
  const claims: Claims = new Claims(queue, notifier, limits, (lease, lost) => completions.deadLetter(lease, lost))
  const checkpoints = new Checkpoints(queue, store, settings, log)
  const completions = new Completions(queue, claims, checkpoints, notifier, settings.backoffMs, attemptLog)
  return {
    queue,
    submitter: new Submitter(queue, notifier),
    claims,
    completions,
    checkpoints,
    leases: new Leases(queue, claims, notifier, new LeaseLimit(queue, completions, settings.timeoutMs, log)),
    results: new Results(queue, notifier),
    control: new Control(queue, notifier, log),
  }
}
