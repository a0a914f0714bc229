/**
 * How long a lease may be extended. A worker enforces the run-time limit of its jobs; should it fail to (its slot
 * hangs, it forgot the job and goes on naming it), the node ends the attempt as timed out, so that no job runs for
 * ever.
 *
 *   claim ──timeoutMs──▶ the worker ends it ──a few leases──▶ extension is refused, the attempt ends here
 *
 * Every job has a limit: its own, or MUSTER_TIMEOUT_MS. One that runs alone may wait for others before it starts, so
 * their limit is added to its own.
 */

import type { Logger } from 'pino'
import type { LeaseRef } from '../../contract/worker-protocol.ts'
import { bullFields, lockSuffix } from '../bullmq/bull-layout.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import type { JobData } from '../job-data.ts'
import type { Completions } from './completions.ts'
import { exclusiveAfterCount, parseLostWorkers } from './lost-workers.ts'

/** Leases beyond the limit: for the way to the slot, and for an outcome that is being delivered. */
const graceLeases = 5
/** Attempts whose limit is remembered; more are looked up again. */
const maxRemembered = 50_000

export class LeaseLimit {
  readonly #queue: JobQueue
  readonly #completions: Pick<Completions, 'fail'>
  readonly #defaultMs: number
  readonly #log: Logger
  /**
   * When each attempt is overdue, in ms since the epoch; by Work ID and token, for the next job of a worker inherits
   * its token.
   */
  readonly #overdueAt = new Map<string, number>()

  constructor(queue: JobQueue, completions: Pick<Completions, 'fail'>, defaultMs: number, log: Logger) {
    this.#queue = queue
    this.#completions = completions
    this.#defaultMs = defaultMs
    this.#log = log
  }

  /** Ends the attempts that are overdue. @returns those */
  async endOverdue(leases: readonly LeaseRef[]): Promise<LeaseRef[]> {
    await this.#lookUp(leases.filter(lease => !this.#overdueAt.has(keyOf(lease))))
    const now = Date.now()
    const overdue = leases.filter(lease => (this.#overdueAt.get(keyOf(lease)) ?? Number.POSITIVE_INFINITY) < now)
    await Promise.all(overdue.map(lease => this.#end(lease)))
    return overdue
  }

  async #end(lease: LeaseRef): Promise<void> {
    const { workId, token } = lease
    const message = 'its worker held it far beyond its run-time limit, so the node ended the attempt'
    const kind = await this.#completions.fail({ workId, token, durationMs: 0, error: { code: 'timeout', message } })
    this.#overdueAt.delete(keyOf(lease))
    if (kind !== 'stale') this.#log.warn({ queue: this.#queue.name, workId, token, outcome: kind }, message)
  }

  /** What is not held under this token is left to those who extend. */
  async #lookUp(leases: readonly LeaseRef[]): Promise<void> {
    if (leases.length === 0) return
    if (this.#overdueAt.size + leases.length > maxRemembered) this.#overdueAt.clear()
    const pipeline = this.#queue.redis.pipeline()
    for (const { workId } of leases) {
      pipeline.get(`${this.#queue.jobKey(workId)}${lockSuffix}`)
      pipeline.hmget(this.#queue.jobKey(workId), bullFields.startedAt, 'data', 'lost')
    }
    const replies = ((await pipeline.exec()) ?? []).map(([error, value]) => {
      if (error !== null) throw error
      return value
    })
    for (const [index, lease] of leases.entries()) {
      const [startedAt, data, lost] = replies[index * 2 + 1] as (string | null)[]
      if (replies[index * 2] !== lease.token || !startedAt) continue
      const limitMs = (JSON.parse(data ?? '{}') as Partial<JobData>).timeoutMs ?? this.#defaultMs
      const othersMs = parseLostWorkers(lost).length >= exclusiveAfterCount ? this.#defaultMs : 0
      const overdueAt = Number(startedAt) + limitMs + othersMs + graceLeases * this.#queue.leaseMs
      this.#overdueAt.set(keyOf(lease), overdueAt)
    }
  }
}

const keyOf = ({ workId, token }: LeaseRef): string => `${workId} ${token}`
