/**
 * A pool in memory, a second a step: jobs come, workers boot, claim, finish and are interrupted; `decide` sees it as the
 * autoscaler would, with the same measurements. Random, and the same each time.
 */

import { PoolMeasures } from '../../src/fleet/measure/pool-measures.ts'
import type { Instance } from '../../src/fleet/providers/provider.ts'
import { decide } from '../../src/fleet/scaling/decide.ts'
import type { Decision, InstanceView, PoolSnapshot } from '../../src/fleet/scaling/snapshot.ts'
import type { PoolSettings } from '../../src/settings/settings.ts'
import { settings, t0 } from './snapshots.ts'

type Mutable<T> = { -readonly [K in keyof T]: T[K] }
type Machine = Mutable<InstanceView> & { readonly bootsAt: number; readonly jobs: number[]; goneAt?: number }

export interface SimulationOptions {
  readonly settings: Partial<PoolSettings>
  readonly serviceMs: number
  /** Shortest and longest boot. */
  readonly bootMs: readonly [number, number]
}

const noticeMs = 120_000

export class SimulatedPool {
  readonly counts = { launched: 0, drained: 0, interrupted: 0, finished: 0, returned: 0 }
  /** The largest number of instances beyond the ceiling that were not interrupted: must stay 0. */
  overCeiling = 0
  waiting = 0
  now = t0
  #machines: Machine[] = []
  readonly #options: SimulationOptions
  readonly #settings: PoolSettings
  readonly #measures = new PoolMeasures()
  #seed = 42

  constructor(options: SimulationOptions) {
    this.#options = options
    this.#settings = { ...settings, ...options.settings }
  }

  random(): number {
    this.#seed = (this.#seed * 1_103_515_245 + 12_345) % 2 ** 31
    return this.#seed / 2 ** 31
  }

  get ready(): number {
    return this.#machines.filter(({ state }) => state === 'ready').length
  }

  /** Ready or on their way to it. */
  get serving(): number {
    return this.#machines.filter(({ state }) => state === 'ready' || state === 'booting').length
  }

  get there(): number {
    return this.#machines.length
  }

  /** Notices a part of those that are ready. */
  interrupt(share: number): void {
    for (const machine of this.#machines.filter(({ state }) => state === 'ready')) {
      if (this.random() >= share) continue
      this.counts.interrupted += 1
      machine.state = 'draining'
      machine.drainingSince = this.now
      machine.interrupted = { kind: 'interruption', at: this.now + noticeMs }
      machine.goneAt = this.now + noticeMs
    }
  }

  /** One second: `arriving` jobs come, everybody works, and the autoscaler decides. */
  step(arriving: number): Decision {
    this.now += 1000
    this.waiting += arriving
    for (const machine of this.#machines) this.#work(machine)
    this.#machines = this.#machines.filter(machine => !this.#isGone(machine))
    const decision = decide(this.#snapshot(), this.now)
    this.#apply(decision)
    const staying = this.#machines.filter(({ interrupted }) => interrupted === undefined).length
    this.overCeiling = Math.max(this.overCeiling, staying - this.#settings.maxWorkers)
    return decision
  }

  #work(machine: Machine): void {
    const { now } = this
    const left = machine.jobs.filter(endsAt => endsAt > now)
    this.counts.finished += machine.jobs.length - left.length
    machine.jobs.splice(0, machine.jobs.length, ...left)
    if (machine.state === 'booting' && now >= machine.bootsAt) {
      machine.state = 'ready'
      machine.readyAt = machine.bootsAt
    }
    if (machine.state === 'booting') return
    machine.lastSeenAt = now
    while (machine.state === 'ready' && machine.jobs.length < machine.slots && this.waiting > 0) {
      machine.jobs.push(now + this.#options.serviceMs * (0.5 + this.random()))
      this.waiting -= 1
    }
    machine.leases = machine.jobs.length
    if (machine.leases > 0) delete machine.idleSince
    else machine.idleSince ??= now
  }

  /** A host that is taken away hands back what it has not finished. */
  #isGone(machine: Machine): boolean {
    if (machine.state === 'terminating') return true
    if (machine.goneAt === undefined || this.now < machine.goneAt) return false
    this.waiting += machine.jobs.length
    this.counts.returned += machine.jobs.length
    return true
  }

  #snapshot(): PoolSnapshot {
    const running = this.#machines.reduce((sum, { leases }) => sum + leases, 0)
    const { finished } = this.counts
    const busyMs = finished * this.#options.serviceMs
    const load = { waiting: this.waiting, dueDelayed: 0, running, finishedCount: finished, busyMs, paused: false }
    const views = this.#machines.map(({ bootsAt, jobs, goneAt, ...view }): InstanceView => view)
    const listed = views.map(
      ({ id, launchedAt, slots }): Instance => ({
        id,
        launchedAt,
        slots,
        pool: 'default',
        decisionId: id,
        state: 'running',
      }),
    )
    const measured = this.#measures.observe(load, listed, views, this.now)
    const fixed = { queue: 'default', settings: this.#settings, silentAfterMs: 30_000, observedSince: t0 }
    return { ...fixed, ...measured, instances: views }
  }

  #apply({ actions }: Decision): void {
    for (const action of actions) {
      if (action.kind === 'launch') {
        for (let n = 0; n < action.count; n += 1) this.#launch()
        continue
      }
      const machine = this.#machines.find(({ id }) => id === action.instanceId)
      if (machine === undefined) throw new Error(`ends ${action.instanceId}, which is not there`)
      if (action.reason === 'idle' && machine.jobs.length > 0) throw new Error('shrank by a busy worker')
      machine.state = action.kind === 'drain' ? 'draining' : 'terminating'
      if (action.kind === 'drain') machine.drainingSince = this.now
      if (action.kind === 'drain') this.counts.drained += 1
      this.#measures.history.ending(machine.id)
    }
  }

  #launch(): void {
    const [shortest, longest] = this.#options.bootMs
    this.counts.launched += 1
    const isSpot = this.random() < 0.7
    this.#machines.push({
      id: `i-${this.counts.launched}`,
      state: 'booting',
      launchedAt: this.now,
      bootsAt: this.now + shortest + this.random() * (longest - shortest),
      slots: this.#settings.slots,
      leases: 0,
      jobs: [],
      market: isSpot ? 'spot' : 'on-demand',
      hourlyUsd: (isSpot ? 0.02 : 0.06) * (1 + this.random()),
    })
  }
}
