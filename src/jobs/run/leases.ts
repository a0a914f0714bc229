/** Leases of running jobs: extended by heartbeats, put back when they ran out or their worker is known to be gone. */
import type { LeaseRef } from '../../contract/worker-protocol.ts'
import type { Notifier } from '../../notifier.ts'
import { isRedisFull } from '../../redis/redis-errors.ts'
import { isCancelled } from '../bullmq/cancel.ts'
import { isStale, type JobQueue, workerOfToken } from '../bullmq/job-queue.ts'
import type { Claims } from './claims.ts'
import type { LeaseLimit } from './lease-limit.ts'
import { noteRunOut, noteWorkerLost, takeBackLosses } from './lost-workers.ts'

export interface LostLease extends LeaseRef {
  readonly reason: 'cancelled' | 'lost'
}

export class Leases {
  readonly #queue: JobQueue
  readonly #claims: Claims
  readonly #notifier: Notifier
  readonly #limit: LeaseLimit

  constructor(queue: JobQueue, claims: Claims, notifier: Notifier, limit: LeaseLimit) {
    this.#queue = queue
    this.#claims = claims
    this.#notifier = notifier
    this.#limit = limit
  }

  /**
   * Extends all of them from now, but none far beyond the run-time limit of its job: such an attempt ends as timed out.
   * @returns those that do not hold any more, and why
   */
  async extend(given: readonly LeaseRef[]): Promise<LostLease[]> {
    if (given.length === 0) return []
    const overdue = new Set(await this.#limit.endOverdue(given))
    const ended = [...overdue].map(lease => ({ ...lease, reason: 'lost' as const }))
    const leases = given.filter(lease => !overdue.has(lease))
    return leases.length === 0 ? ended : [...ended, ...(await this.#extend(leases))]
  }

  async #extend(leases: readonly LeaseRef[]): Promise<LostLease[]> {
    const failed = (await this.#queue.backend.extendLocks(
      leases.map(lease => lease.workId),
      leases.map(lease => lease.token),
      this.#queue.leaseMs,
    )) as string[]
    if (failed.length === 0) return []
    const lost = new Set(failed)
    return await Promise.all(
      leases
        .filter(lease => lost.has(lease.workId))
        .map(async lease => ({
          ...lease,
          reason: (await isCancelled(this.#queue, lease.workId)) ? ('cancelled' as const) : ('lost' as const),
        })),
    )
  }

  /** A worker is alive: what it was thought to have been lost under is not counted any more. */
  async heardFrom(workerId: string): Promise<void> {
    await takeBackLosses(this.#queue, workerId)
  }

  /** True while this token holds the job. */
  async holds({ workId, token }: LeaseRef): Promise<boolean> {
    return (await this.#queue.redis.get(`${this.#queue.jobKey(workId)}:lock`)) === token
  }

  async setProgress(workId: string, fraction: number, note: string | undefined): Promise<void> {
    try {
      await this.#queue.backend.updateProgress(workId, note === undefined ? { fraction } : { fraction, note })
    } catch (error) {
      if (!isStale(error) && !isRedisFull(error)) throw error
    }
  }

  /** How many jobs each worker holds. */
  async countByWorker(): Promise<Map<string, number>> {
    const counts = new Map<string, number>()
    for (const { token } of await this.#queue.leasedJobs()) {
      if (token === undefined) continue
      const worker = workerOfToken(token)
      counts.set(worker, (counts.get(worker) ?? 0) + 1)
    }
    return counts
  }

  /**
   * Puts back all that a worker holds, for one that is gone; no attempt is spent. When it was lost under its jobs, that
   * is noted for each of them, as it is when a lease runs out.
   * @returns how many
   */
  async returnAllOf(workerId: string, wasLost: boolean): Promise<number> {
    const held = (await this.#queue.leasedJobs()).filter(
      (job): job is LeaseRef => job.token !== undefined && workerOfToken(job.token) === workerId,
    )
    // Before they go back, so that whoever claims them next sees it.
    if (wasLost) await noteWorkerLost(this.#queue, held)
    return await this.#claims.requeue(held)
  }

  /** Puts back what nobody holds any more: its lease ran out without a completion. No attempt is spent. */
  async recoverLost(): Promise<string[]> {
    // First, while it still says who held it: whoever claims it next is to see it.
    await noteRunOut(this.#queue)
    const recovered = await this.#queue.backend.moveStalledJobsToWait()
    if (recovered.length > 0) this.#notifier.notify(`jobs:${this.#queue.name}`)
    return recovered
  }
}
