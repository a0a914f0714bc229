/**
 * What one node measures of one pool from tick to tick: launches that fail, how long jobs and boots take, how fast jobs
 * come, since when they wait. All of it starts anew with a node and costs at most a guess until it is measured again.
 */

import type { QueueLoad } from '../fleet-queues.ts'
import type { Instance } from '../providers/provider.ts'
import type { InstanceView, LaunchFailures, PoolLoad } from '../scaling/snapshot.ts'
import { BootLog } from './boot-log.ts'
import { ArrivalRate, BootTimes, ServiceTime } from './estimators.ts'

export interface Measured {
  readonly load: PoolLoad
  readonly failures: LaunchFailures
  readonly bootMs?: number
}

export class PoolMeasures {
  #history = new LaunchHistory()
  readonly #service = new ServiceTime()
  readonly #arrivals = new ArrivalRate()
  readonly #boots = new BootTimes()
  readonly bootLog = new BootLog()
  #waitingSince: number | undefined

  get history(): LaunchHistory {
    return this.#history
  }

  /** Another node acted meanwhile: what was seen of launches and of waiting is stale. */
  takeOver(): void {
    this.#history = new LaunchHistory()
    this.#waitingSince = undefined
    this.bootLog.takeOver()
  }

  /** @param listed instances of this pool, of which `views` shows what is known */
  observe(load: QueueLoad, listed: readonly Instance[], views: readonly InstanceView[], now: number): Measured {
    this.#history.observe(listed, views, now)
    const { waiting, dueDelayed, running, paused } = load
    const serviceMs = this.#service.observe(load, now)
    const arrivalsPerSecond = this.#arrivals.observe(load, now)
    const bootMs = this.#boots.observe(views)
    this.#waitingSince = waiting === 0 || paused ? undefined : (this.#waitingSince ?? now)
    return {
      load: {
        waiting,
        dueDelayed,
        running,
        paused,
        ...(serviceMs !== undefined && { serviceMs: Math.round(serviceMs * 1000) / 1000 }),
        ...(arrivalsPerSecond !== undefined && { arrivalsPerSecond }),
        ...(this.#waitingSince !== undefined && { waitingSince: this.#waitingSince }),
      },
      failures: this.#history.failures,
      ...(bootMs !== undefined && { bootMs }),
    }
  }
}

/**
 * Notices launches that fail: a call that is refused, an instance that ends before its worker lasted, or one whose
 * worker never came. All instances of one decision count as one failure. A worker launched since the last failure that
 * lasts for `lastingMs` shows that launches are sound again.
 * Kept in memory: another node that takes over starts without failures, and learns from at most one failed launch.
 */
const lastingMs = 10_000
const errorLength = 300

interface ObservedInstance {
  readonly decisionId: string
  readonly launchedAt: number
  /** It was told to end or to drain: that it ends is no failure. */
  expected: boolean
}

export class LaunchHistory {
  readonly #seen = new Map<string, ObservedInstance>()
  readonly #failedDecisions = new Set<string>()
  #failures: LaunchFailures = { count: 0, lastAt: 0 }

  get failures(): LaunchFailures {
    return this.#failures
  }

  /** Compares what is there with what was there before. */
  observe(instances: readonly Instance[], views: readonly InstanceView[], now: number): void {
    const states = new Map(views.map(view => [view.id, view]))
    const present = new Set(instances.map(({ id }) => id))
    for (const [id, { decisionId, launchedAt, expected }] of this.#seen) {
      if (present.has(id)) continue
      this.#seen.delete(id)
      if (!expected && now - launchedAt < lastingMs) this.failed(decisionId, now)
    }
    for (const { id, decisionId, launchedAt } of instances) this.launched(id, decisionId, launchedAt)
    for (const [id, observed] of this.#seen) {
      const view = states.get(id)
      if (view?.state === 'draining' || view?.state === 'terminating') observed.expected = true
      if (view?.state === 'ready' && this.#isProof(view, now)) this.#reset()
    }
  }

  /** Remembers an instance from its launch on, so that one that ends before the next look is missed. */
  launched(id: string, decisionId: string, launchedAt: number): void {
    if (!this.#seen.has(id)) this.#seen.set(id, { decisionId, launchedAt, expected: false })
  }

  /** Somebody tells the instance to end: that is no failure, whenever it ends. */
  ending(id: string): void {
    const observed = this.#seen.get(id)
    if (observed !== undefined) observed.expected = true
  }

  /** The launch of this decision came to nothing. @param error what was said, cut to a line */
  failed(decisionId: string, now: number, error?: string): void {
    if (this.#failedDecisions.has(decisionId)) return
    this.#failedDecisions.add(decisionId)
    const said = error === undefined ? {} : { lastError: error.replaceAll(/\s+/g, ' ').slice(0, errorLength) }
    this.#failures = { count: this.#failures.count + 1, lastAt: now, ...said }
  }

  /** The instance never got a worker: its launch failed. */
  neverBooted(id: string, now: number): void {
    const observed = this.#seen.get(id)
    if (observed !== undefined) this.failed(observed.decisionId, now)
    this.ending(id)
  }

  #isProof({ launchedAt, readyAt }: InstanceView, now: number): boolean {
    const { count, lastAt } = this.#failures
    return count > 0 && launchedAt >= lastAt && readyAt !== undefined && now - readyAt >= lastingMs
  }

  #reset(): void {
    this.#failures = { count: 0, lastAt: 0 }
    this.#failedDecisions.clear()
  }
}
