/**
 * Claims of one queue: takes jobs for workers, of the types that each declares, and keeps those who may wait in line
 * until there is one.
 *
 *   claim ──▶ jobs there? ──yes──▶ leased to the worker
 *               │ no, may wait
 *               ▼
 *            in line ──notifier, due delayed job, or a look each second──▶ served first come, first served
 */
import type { JobJson } from 'bullmq'
import type { Content, Lease } from '../../contract/worker-protocol.ts'
import type { Notifier } from '../../notifier.ts'
import { type Claimant, maxTaken, takeMany } from '../bullmq/claim-batch.ts'
import { isStale, type JobQueue } from '../bullmq/job-queue.ts'
import { type JobData, jsonOf, type StoredContent } from '../job-data.ts'
import { parseCheckpoint } from './checkpoints.ts'
import { ClaimActivity } from './claim-activity.ts'
import { exclusiveAfterCount, type LostWorker, parseLostWorkers } from './lost-workers.ts'

export interface ClaimOptions extends Claimant {
  /** At most this many jobs. */
  readonly max: number
  /** How long to wait for the first one. */
  readonly waitMs: number
  /** Ends the wait: the worker is gone. */
  readonly signal: AbortSignal
}

interface Waiter extends ClaimOptions {
  /** Of all who declare the same types. */
  readonly kind: string
  readonly settle: (leases: Lease[]) => void
  readonly fail: (error: unknown) => void
}

/** A notification can get lost; nobody waits longer than this for a look of their own. */
const lookAgainMs = 1000

export interface ClaimLimits {
  readonly timeoutMs: number
  readonly maxLostLeases: number
  /** process: each attempt has a process of its own. */
  readonly isolation: 'slot' | 'process'
}

/** Buries a job under which too many workers were lost; resolves when it is dead. */
export type DeadLetter = (lease: { workId: string; token: string }, lost: readonly LostWorker[]) => Promise<void>

export class Claims {
  readonly activity = new ClaimActivity()
  readonly #queue: JobQueue
  readonly #limits: ClaimLimits
  readonly #deadLetter: DeadLetter
  readonly #waiters: Waiter[] = []
  readonly #stopListening: () => void
  #serving = false
  #notifiedWhileServing = false
  #timer: NodeJS.Timeout | undefined
  #tokenCount = 0
  readonly #tokenSeed = Math.random().toString(36).slice(2, 10)

  constructor(queue: JobQueue, notifier: Notifier, limits: ClaimLimits, deadLetter: DeadLetter) {
    this.#queue = queue
    this.#limits = limits
    this.#deadLetter = deadLetter
    this.#stopListening = notifier.on(`jobs:${queue.name}`, () => void this.#serve())
  }

  /** Leases up to `max` jobs; an empty list when none came in time. */
  async claim(options: ClaimOptions): Promise<Lease[]> {
    return await this.activity.during(options.types, () => this.#claim(options))
  }

  /** A fresh fencing token: no two attempts ever share one. */
  newToken(workerId: string): string {
    this.#tokenCount += 1
    return `${workerId}/${this.#tokenSeed}${this.#tokenCount.toString(36)}`
  }

  /** A job as BullMQ handed it out, as a lease for a worker; undefined (and buried) when it lost too many workers. */
  async toLease(job: JobJson, token: string): Promise<Lease | undefined> {
    this.activity.claimedCount += 1
    const { lost, checkpoint } = await this.#past(job)
    if (lost.length >= this.#limits.maxLostLeases) {
      await this.#deadLetter({ workId: job.id, token }, lost)
      return undefined
    }
    const data = JSON.parse(job.data) as JobData
    const attempt = (job.attemptsMade ?? 0) + 1
    return {
      workId: job.id,
      token,
      type: job.name,
      attempt,
      attempts: Math.max(attempt, job.opts.attempts ?? 1),
      payload: toContent(data.payload, 'payloads', job.id, token),
      params: data.params ?? {},
      timeoutMs: data.timeoutMs ?? this.#limits.timeoutMs,
      ...(checkpoint !== undefined && { checkpoint: toContent(checkpoint, 'checkpoints', job.id, token) }),
      ...(lost.length >= exclusiveAfterCount && { exclusive: true }),
      ...(this.#limits.isolation === 'process' && { isolation: 'process' as const }),
    }
  }

  /** Of several leases one that must run alone comes alone: all others go back. */
  async apart(leases: Lease[]): Promise<Lease[]> {
    const exclusive = leases.length > 1 ? leases.find(lease => lease.exclusive) : undefined
    if (exclusive === undefined) return leases
    await this.requeue(leases.filter(lease => lease !== exclusive))
    return [exclusive]
  }

  /**
   * Puts leased jobs back to the head of the line; no attempt is spent.
   * @returns how many were still leased under the token given
   */
  async requeue(leases: readonly { workId: string; token: string }[]): Promise<number> {
    const outcomes = await Promise.all(
      leases.map(async ({ workId, token }) => {
        try {
          await this.#queue.backend.moveJobFromActiveToWait(workId, token)
          return 1
        } catch (error) {
          if (isStale(error)) return 0
          throw error
        }
      }),
    )
    const count = outcomes.reduce<number>((sum, one) => sum + one, 0)
    if (count > 0) void this.#serve()
    return count
  }

  /** Sends everybody who waits away with nothing. */
  close(): void {
    this.#stopListening()
    clearTimeout(this.#timer)
    for (const waiter of this.#waiters.splice(0)) waiter.settle([])
  }

  async #claim(options: ClaimOptions): Promise<Lease[]> {
    const kind = kindOf(options.types)
    if (!this.#waiters.some(waiter => waiter.kind === kind)) {
      const { leases } = await this.#take(options, options.max)
      if (leases.length > 0 || options.waitMs === 0) return leases
    } else if (options.waitMs === 0) {
      return []
    }
    if (options.signal.aborted) return []
    return await this.#wait(options)
  }

  /** What earlier starts of a job left; a job that starts for the first time is not asked for it. */
  async #past({
    id,
    attemptsStarted,
  }: JobJson): Promise<{ lost: LostWorker[]; checkpoint: StoredContent | undefined }> {
    if (attemptsStarted <= 1) return { lost: [], checkpoint: undefined }
    const [lost, checkpoint] = await this.#queue.redis.hmget(this.#queue.jobKey(id), 'lost', 'checkpoint')
    return { lost: parseLostWorkers(lost), checkpoint: parseCheckpoint(checkpoint) }
  }

  #wait(options: ClaimOptions): Promise<Lease[]> {
    return new Promise((resolve, reject) => {
      const finish = (act: () => void): void => {
        clearTimeout(timer)
        options.signal.removeEventListener('abort', giveUp)
        const index = this.#waiters.indexOf(waiter)
        if (index >= 0) this.#waiters.splice(index, 1)
        act()
      }
      const waiter: Waiter = {
        ...options,
        kind: kindOf(options.types),
        settle: leases => finish(() => resolve(leases)),
        fail: error => finish(() => reject(error as Error)),
      }
      const giveUp = (): void => waiter.settle([])
      const timer = setTimeout(giveUp, options.waitMs)
      options.signal.addEventListener('abort', giveUp)
      this.#waiters.push(waiter)
      void this.#serve()
    })
  }

  /** Hands jobs to those who wait until one of both has run out; one run at a time. */
  async #serve(): Promise<void> {
    if (this.#serving) {
      this.#notifiedWhileServing = true
      return
    }
    this.#serving = true
    clearTimeout(this.#timer)
    let nextLookMs = lookAgainMs
    try {
      // Of those who run the same types one look is enough to know that there is nothing for any of them.
      const missed = new Set<string>()
      const next = (): Waiter | undefined => this.#waiters.find(({ kind }) => !missed.has(kind))
      for (let waiter = next(); waiter !== undefined; waiter = next()) {
        this.#notifiedWhileServing = false
        const { leases, nextDelayedAt } = await this.#take(waiter, waiter.max)
        if (leases.length > 0) {
          if (this.#waiters.includes(waiter)) waiter.settle(leases)
          else await this.requeue(leases)
          continue
        }
        if (nextDelayedAt !== undefined) nextLookMs = Math.min(nextLookMs, Math.max(1, nextDelayedAt - Date.now()))
        if (this.#notifiedWhileServing) missed.clear()
        else missed.add(waiter.kind)
      }
    } catch (error) {
      // Redis is away: tell them now, they come again with a delay of their own.
      for (const waiter of this.#waiters.slice()) waiter.fail(error)
    } finally {
      this.#serving = false
    }
    if (this.#waiters.length > 0) this.#timer = setTimeout(() => void this.#serve(), nextLookMs)
  }

  /** Takes up to `max` jobs, as many as there are. */
  async #take({ workerId, types }: Claimant, max: number): Promise<{ leases: Lease[]; nextDelayedAt?: number }> {
    const leases: Lease[] = []
    for (let missed = false; !missed && leases.length < max; ) {
      const wanted = Math.min(maxTaken, max - leases.length)
      const tokens = Array.from({ length: wanted }, () => this.newToken(workerId))
      const { jobs, nextDelayedAt } = await takeMany(this.#queue, { workerId, types }, tokens)
      for (const { job, token } of jobs) {
        const lease = await this.toLease(job, token)
        if (lease !== undefined) leases.push(lease)
      }
      if (nextDelayedAt !== undefined && leases.length === 0) return { leases, nextDelayedAt }
      missed = jobs.length < wanted || leases.some(lease => lease.exclusive)
    }
    return { leases: await this.apart(leases) }
  }
}

const kindOf = (types: readonly string[]): string => JSON.stringify([...types].sort())

function toContent(stored: StoredContent, place: 'payloads' | 'checkpoints', workId: string, token: string): Content {
  if (stored.blob !== undefined) {
    const { kind, bytes, sha256 } = stored.blob
    return { blob: { url: `/workers/${place}/${workId}?token=${encodeURIComponent(token)}`, kind, bytes, sha256 } }
  }
  return stored.base64 === undefined ? { json: jsonOf(stored) } : { base64: stored.base64 }
}
