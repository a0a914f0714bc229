/**
 * Completion: what an attempt left is recorded once, under its token.
 *
 * The index of uncollected results is written before BullMQ finishes the job: adding twice is harmless, an entry whose
 * job is not finished yet is skipped, so a node that dies between the two loses nothing. The entry is only added while
 * the token still holds the lease; a late completion under an old token cannot bring a collected result back.
 */
import { type JobJson, UnrecoverableError } from 'bullmq'
import type { Lease } from '../contract/worker-protocol.ts'
import type { Bell } from '../redis/bell.ts'
import { Script } from '../redis/script.ts'
import type { Checkpoints } from './checkpoints.ts'
import { type Claims, withId } from './claims.ts'
import type { StoredContent } from './job-data.ts'
import { isStale, type JobQueue } from './job-queue.ts'
import type { LeaseRef } from './leases.ts'
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

export type OutcomeKind = 'succeeded' | 'retrying' | 'dead' | 'stale'

/** Lines kept of one job's log. */
const keepLogLines = 1000

/**
 * Adds Work IDs to the index of uncollected results, in order, if their lease is held by the token given.
 * KEYS: index to add to, the other index, sequence. ARGV: prefix of job keys, then Work ID and token in turn.
 * Returns for each: 0 when it is not held, 1 when it is, 2 when it also has a checkpoint.
 */
const markFinished = new Script<number[]>(
  'mark_finished',
  `local held = {}
for i = 2, #ARGV, 2 do
  if redis.call('GET', ARGV[1] .. ARGV[i] .. ':lock') == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[3]), ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    held[#held + 1] = 1 + redis.call('HEXISTS', ARGV[1] .. ARGV[i], 'checkpoint')
  else
    held[#held + 1] = 0
  end
end
return held`,
)

export class Completions {
  readonly #queue: JobQueue
  readonly #claims: Claims
  readonly #checkpoints: Checkpoints
  readonly #bell: Bell
  readonly #backoffMs: number

  constructor(queue: JobQueue, claims: Claims, checkpoints: Checkpoints, bell: Bell, backoffMs: number) {
    this.#queue = queue
    this.#claims = claims
    this.#checkpoints = checkpoints
    this.#bell = bell
    this.#backoffMs = backoffMs
  }

  /**
   * Records outcomes; with `claim` above 0 also leases up to that many next jobs to the same worker.
   * @throws whatever Redis says when it is away: the worker sends all of it again, and what was recorded is then stale
   */
  async complete(
    workerId: string,
    outcomes: readonly Outcome[],
    claim: number,
  ): Promise<{ kinds: OutcomeKind[]; leases: Lease[] }> {
    const kinds = new Map<Outcome, OutcomeKind>()
    const leases: Lease[] = []
    const successes = outcomes.filter(outcome => outcome.error === undefined)
    const failures = outcomes.filter(outcome => outcome.error !== undefined)
    await this.#addLogs(outcomes)
    const held = await this.#mark('uncollected', successes)
    let claimsLeft = claim
    await Promise.all([
      ...successes.map(async (outcome, index) => {
        if (held[index] === 0) {
          kinds.set(outcome, 'stale')
          return
        }
        // The next job inherits the token: one that succeeded is never leased again, so no two attempts share it.
        const fetchNext = claimsLeft-- > 0
        const next = await this.#succeed(outcome, workerId, fetchNext)
        kinds.set(outcome, next === 'stale' ? 'stale' : 'succeeded')
        if (next === 'stale') return
        if (held[index] === 2) await this.#checkpoints.drop(outcome.workId)
        if (next === undefined) return
        const lease = await this.#claims.toLease(next, outcome.token)
        if (lease !== undefined) leases.push(lease)
      }),
      ...failures.map(async outcome => kinds.set(outcome, await this.fail(outcome))),
    ])
    await this.#count(outcomes.filter(outcome => kinds.get(outcome) !== 'stale'))
    this.#bell.ring(`results:${this.#queue.name}`)
    const wanted = claim - leases.length
    // Failures and stale ones fetch nothing; a success that fetched nothing found the queue empty.
    if (wanted > 0 && successes.length < claim) {
      leases.push(
        ...(await this.#claims.claim({ workerId, max: wanted, waitMs: 0, signal: new AbortController().signal })),
      )
    }
    return {
      kinds: outcomes.map(outcome => kinds.get(outcome) ?? 'stale'),
      leases: await this.#claims.apart(leases),
    }
  }

  /** Ends an attempt that failed: back to the queue after a delay, or dead. */
  async fail(outcome: Outcome): Promise<OutcomeKind> {
    const failure = outcome.error as AttemptFailure
    const job = await this.#queue.job(outcome.workId)
    if (job === undefined) return 'stale'
    const retry = failure.retryable !== false && job.attemptsMade + 1 < (job.opts.attempts ?? 1)
    if (!retry && (await this.#mark('uncollectedDead', [outcome]))[0] === 0) return 'stale'
    // BullMQ computes the delay (Backoffs.exponential): round(2^(attempt-1) × backoffMs), the upper half of it random.
    job.opts.backoff = { type: 'exponential', delay: this.#backoffMs, jitter: 0.5 }
    try {
      await job.moveToFailed(toError(failure, retry), outcome.token, false)
    } catch (error) {
      if (isStale(error)) return 'stale'
      throw error
    }
    if (retry) this.#bell.ring(`jobs:${this.#queue.name}`)
    return retry ? 'retrying' : 'dead'
  }

  /** Ends a job that lost too many workers, with the evidence; it was just leased under this token. */
  async bury({ workId, token }: LeaseRef, lost: readonly LostWorker[]): Promise<void> {
    const error = { code: 'workers_lost', message: describeLostWorkers(lost), retryable: false }
    await this.fail({ workId, token, durationMs: 0, error })
    this.#bell.ring(`results:${this.#queue.name}`)
  }

  async #mark(index: 'uncollected' | 'uncollectedDead', outcomes: readonly Outcome[]): Promise<number[]> {
    if (outcomes.length === 0) return []
    const { keys, redis, bullPrefix } = this.#queue
    const other = index === 'uncollected' ? keys.uncollectedDead : keys.uncollected
    const pairs = outcomes.flatMap(({ workId, token }) => [workId, token])
    return await markFinished.run(redis, [keys[index], other, keys.sequence], [bullPrefix, ...pairs])
  }

  async #succeed(outcome: Outcome, workerId: string, fetchNext: boolean): Promise<JobJson | 'stale' | undefined> {
    try {
      const [next, workId] = (await this.#queue.finish(outcome, outcome.value, workerId, fetchNext)) ?? []
      return next ? withId(next, workId) : undefined
    } catch (error) {
      if (isStale(error)) return 'stale'
      throw error
    }
  }

  async #addLogs(outcomes: readonly Outcome[]): Promise<void> {
    for (const { workId, logs } of outcomes) if (logs !== undefined && logs.length > 0) await this.addLogs(workId, logs)
  }

  /** Appends to the log of a job; the oldest lines over the limit go. Lines of a job that is gone are dropped. */
  async addLogs(workId: string, lines: readonly string[]): Promise<void> {
    try {
      await Promise.all(lines.map(line => this.#queue.backend.addLog(workId, line, keepLogLines)))
    } catch (error) {
      if (!isStale(error)) throw error
    }
  }

  async #count(finished: readonly Outcome[]): Promise<void> {
    if (finished.length === 0) return
    const busyUs = Math.round(finished.reduce((sum, { durationMs }) => sum + durationMs * 1000, 0))
    const pipeline = this.#queue.redis.pipeline()
    pipeline.hincrby(this.#queue.keys.stats, 'finished', finished.length)
    pipeline.hincrby(this.#queue.keys.stats, 'busyUs', busyUs)
    await pipeline.exec()
  }
}

function toError(failure: AttemptFailure, retry: boolean): Error {
  const text = `${failure.code}: ${failure.message}`
  const error = retry ? new Error(text) : new UnrecoverableError(text)
  error.stack = failure.stack ?? text
  return error
}
