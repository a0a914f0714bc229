/**
 * Completion: what an attempt left is recorded once, under its token.
 *
 * A success is indexed and finished in one step (complete-batch.ts). A job that will be dead is indexed first, if the
 * token still holds the lease: adding twice is harmless, and an entry whose job is not finished yet is passed over. A
 * late completion under an old token changes nothing, and cannot bring a collected result back.
 *
 * The worker is answered once all of this is kept (redis/writes/durable-writes.ts), also when it is told "stale": it
 * forgets the outcome then. The next jobs that it gets along are claims, and not waited for.
 */

import { UnrecoverableError } from 'bullmq'
import type { Lease, LeaseRef } from '../../contract/worker-protocol.ts'
import type { Notifier } from '../../notifier.ts'
import { isRedisFull } from '../../redis/redis-errors.ts'
import { Script } from '../../redis/script.ts'
import { bullFields, lockSuffix } from '../bullmq/bull-layout.ts'
import type { Claimant } from '../bullmq/claim-batch.ts'
import { finishMany } from '../bullmq/complete-batch.ts'
import { isStale, type JobQueue } from '../bullmq/job-queue.ts'
import type { StoredContent } from '../job-data.ts'
import type { AttemptLog } from './attempt-log.ts'
import type { Checkpoints } from './checkpoints.ts'
import type { Claims } from './claims.ts'
import { describeLostWorkers, type LostWorker } from './lost-workers.ts'

export interface Outcome {
  readonly workId: string
  readonly token: string
  /** How long the attempt ran, as its worker measured it. */
  readonly durationMs: number
  readonly logs?: readonly string[]
  /** Exactly one of the two. */
  readonly value?: StoredContent
  readonly error?: AttemptFailure
}

export interface AttemptFailure {
  readonly code: string
  readonly message: string
  readonly stack?: string
  /** false: no further attempt. */
  readonly retryable?: boolean
}

/** requeued: the worker does not run this type; no attempt was spent. */
export type OutcomeKind = 'succeeded' | 'retrying' | 'dead' | 'requeued' | 'stale'

/** A worker that finds that it has no handler for a job. */
export const typeUnsupported = 'type_unsupported'

/** Between two attempts: of a thousand attempts the last ones should still be this year's. */
const longestBackoffMs = 3_600_000
/** Lines kept of one job's log. */
const keepLogLines = 1000

/**
 * Adds a Work ID to the index of dead jobs if its lease is held by the token given.
 * KEYS: index, the other index, sequence, lock of the job. ARGV: Work ID, token. Returns 1 or 0.
 */
const markDead = new Script<number>(
  'mark_dead',
  `if redis.call('GET', KEYS[4]) ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[3]), ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1`,
  { whenFull: true },
)

/** How long it ran is left out for what was not counted as an attempt. */
interface FailedEnd {
  readonly kind: OutcomeKind
  readonly ranMs?: number
}

const stale: FailedEnd = { kind: 'stale' }

export class Completions {
  readonly #queue: JobQueue
  readonly #claims: Claims
  readonly #checkpoints: Checkpoints
  readonly #notifier: Notifier
  readonly #backoffMs: number
  readonly #attemptLog: AttemptLog

  constructor(
    queue: JobQueue,
    claims: Claims,
    checkpoints: Checkpoints,
    notifier: Notifier,
    backoffMs: number,
    attemptLog: AttemptLog,
  ) {
    this.#attemptLog = attemptLog
    this.#queue = queue
    this.#claims = claims
    this.#checkpoints = checkpoints
    this.#notifier = notifier
    this.#backoffMs = backoffMs
  }

  /**
   * Records outcomes; with `claim` above 0 also leases up to that many next jobs to the same worker.
   * @throws whatever Redis says when it is away: the worker sends all of it again, and what was recorded is then stale
   */
  async complete(
    claimant: Claimant,
    outcomes: readonly Outcome[],
    claim: number,
  ): Promise<{ kinds: OutcomeKind[]; leases: Lease[] }> {
    const kinds = new Map<Outcome, OutcomeKind>()
    const leases: Lease[] = []
    const successes = outcomes.filter(outcome => outcome.error === undefined)
    const failures = outcomes.filter(outcome => outcome.error !== undefined)
    await this.#addLogs(outcomes)
    // The next job inherits the token: one that succeeded is never leased again, so no two attempts share it.
    const finishing = finishMany(this.#queue, successes, claimant, claim)
    await Promise.all([
      this.#failAll(failures).then(async ends => {
        for (const [index, { kind }] of ends.entries()) kinds.set(failures[index] as Outcome, kind)
        await this.#count(ends)
      }),
      finishing.then(finished =>
        Promise.all(
          finished.map(async (end, index) => {
            const outcome = successes[index] as Outcome
            kinds.set(outcome, end === 'stale' ? 'stale' : 'succeeded')
            if (end === 'stale') return
            if (end.hadCheckpoint) await this.#checkpoints.drop(outcome.workId)
            const lease = end.next && (await this.#claims.toLease(end.next, outcome.token))
            if (lease !== undefined) leases.push(lease)
          }),
        ),
      ),
    ])
    this.#notifier.notify(`results:${this.#queue.name}`)
    const wanted = claim - leases.length
    // Failures and stale ones fetch nothing; a success that fetched nothing found the queue empty.
    if (wanted > 0 && successes.length < claim) {
      leases.push(
        ...(await this.#claims.claim({ ...claimant, max: wanted, waitMs: 0, signal: new AbortController().signal })),
      )
    }
    return {
      kinds: outcomes.map(outcome => kinds.get(outcome) ?? 'stale'),
      leases: await this.#claims.apart(leases),
    }
  }

  async #failAll(failures: readonly Outcome[]): Promise<FailedEnd[]> {
    if (failures.length === 0) return []
    return await this.#queue.confirm(() => Promise.all(failures.map(outcome => this.#fail(outcome))))
  }

  /** Ends an attempt that failed: back to the queue after a delay, or dead. Kept by the primary only. */
  async fail(outcome: Outcome): Promise<OutcomeKind> {
    return (await this.#fail(outcome)).kind
  }

  async #fail(outcome: Outcome): Promise<FailedEnd> {
    const failure = outcome.error as AttemptFailure
    if (failure.code === typeUnsupported)
      return (await this.#claims.requeue([outcome])) === 1 ? { kind: 'requeued' } : stale
    const job = await this.#queue.job(outcome.workId)
    if (job === undefined) return stale
    const heldMs = Math.max(0, Date.now() - (job.processedOn ?? 0))
    const retry = failure.retryable !== false && job.attemptsMade + 1 < (job.opts.attempts ?? 1)
    if (!retry && !(await this.#markDead(outcome))) return stale
    job.opts.backoff = { type: 'fixed', delay: retryDelayMs(job.attemptsMade + 1, this.#backoffMs), jitter: 0.5 }
    try {
      await job.moveToFailed(toError(failure, retry), outcome.token, false)
    } catch (error) {
      if (isStale(error)) return stale
      throw error
    }
    const attempts = job.opts.attempts ?? 1
    const { code, message } = failure
    this.#attemptLog.failed(
      {
        queue: this.#queue.name,
        type: job.name,
        workId: outcome.workId,
        attempt: job.attemptsMade,
        attempts,
        code,
        message,
      },
      !retry,
    )
    if (retry) this.#notifier.notify(`jobs:${this.#queue.name}`)
    // Whatever the worker says, it ran for no longer than it was leased.
    return { kind: retry ? 'retrying' : 'dead', ranMs: Math.min(outcome.durationMs, heldMs + 1) }
  }

  /**
   * Ends a job that lost too many workers, with the evidence; it was just leased under this token. Nobody is told:
   * should a failover forget it, the next claim buries the job again.
   */
  async deadLetter({ workId, token }: LeaseRef, lost: readonly LostWorker[]): Promise<void> {
    const error = { code: 'workers_lost', message: describeLostWorkers(lost), retryable: false }
    await this.fail({ workId, token, durationMs: 0, error })
    this.#notifier.notify(`results:${this.#queue.name}`)
  }

  /** The type of a job that this token holds. */
  async typeOfHeld({ workId, token }: LeaseRef): Promise<string | undefined> {
    const job = this.#queue.jobKey(workId)
    const [lock, type] = await Promise.all([
      this.#queue.redis.get(`${job}${lockSuffix}`),
      this.#queue.redis.hget(job, bullFields.type),
    ])
    return lock === token ? (type ?? undefined) : undefined
  }

  /** Puts a job that is about to be dead into its index, if the token holds it. */
  async #markDead({ workId, token }: Outcome): Promise<boolean> {
    const { keys, redis } = this.#queue
    const indexes = [keys.uncollectedDead, keys.uncollected, keys.sequence]
    return (await markDead.run(redis, [...indexes, `${this.#queue.jobKey(workId)}:lock`], [workId, token])) === 1
  }

  async #addLogs(outcomes: readonly Outcome[]): Promise<void> {
    for (const { workId, logs } of outcomes) if (logs !== undefined && logs.length > 0) await this.addLogs(workId, logs)
  }

  /**
   * Appends to the log of a job; the oldest lines over the limit go. Lines of a job that is gone are dropped, and all
   * when Redis is full.
   */
  async addLogs(workId: string, lines: readonly string[]): Promise<void> {
    try {
      await Promise.all(lines.map(line => this.#queue.backend.addLog(workId, line, keepLogLines)))
    } catch (error) {
      if (!isStale(error) && !isRedisFull(error)) throw error
    }
  }

  async #count(ends: readonly FailedEnd[]): Promise<void> {
    const finished = ends.flatMap(({ ranMs }) => ranMs ?? [])
    if (finished.length === 0) return
    const busyUs = Math.round(finished.reduce((sum, ranMs) => sum + ranMs * 1000, 0))
    const pipeline = this.#queue.redis.pipeline()
    pipeline.hincrby(this.#queue.keys.stats, 'finished', finished.length)
    pipeline.hincrby(this.#queue.keys.stats, 'busyUs', busyUs)
    await pipeline.exec()
  }
}

/**
 * Doubles from attempt to attempt, up to an hour (or to the first delay, if that is longer); BullMQ makes its upper
 * half random.
 */
export const retryDelayMs = (attempt: number, backoffMs: number): number =>
  Math.min(2 ** (attempt - 1) * backoffMs, Math.max(longestBackoffMs, backoffMs))

function toError(failure: AttemptFailure, retry: boolean): Error {
  const text = `${failure.code}: ${failure.message}`
  const error = retry ? new Error(text) : new UnrecoverableError(text)
  error.stack = failure.stack ?? text
  return error
}
