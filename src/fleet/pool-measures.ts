/**
 * What one node measures of one pool from tick to tick: launches that fail, how long jobs and boots take, how fast jobs
 * come, since when they wait. All of it starts anew with a node and costs at most a guess until it is measured again.
 */
import { ArrivalRate } from './arrival-rate.ts'
import { BootLog } from './boot-log.ts'
import { BootTimes } from './boot-times.ts'
import type { QueueLoad } from './fleet-queues.ts'
import { LaunchHistory } from './launch-history.ts'
import type { Instance } from './providers/provider.ts'
import { ServiceTime } from './service-time.ts'
import type { InstanceView, LaunchFailures, PoolLoad } from './snapshot.ts'

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
