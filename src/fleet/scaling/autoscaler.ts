/**
 * The scaling loop: every tick reads the whole state, decides for each pool, and applies. Level-triggered: a lost event,
 * a crash or a failed call costs one tick. One node acts at a time, under the leader lease.
 *
 * Duties, in order: hold the leader lease; read one snapshot a pool; decide; journal; publish the latest decision; carry out.
 * Pools are scaled side by side: a launch that takes long in one of them does not hold up the others' tick.
 */
import type { FastifyBaseLogger } from 'fastify'
import { Loop } from '../../loop.ts'
import type { PoolSettings } from '../../settings/settings.ts'
import { within } from '../../within.ts'
import { type FleetQueues, launchableTypes, onlyUseful } from '../fleet-queues.ts'
import type { Journal } from '../journal/journal.ts'
import { type LatestDecisions, ReasonNews } from '../journal/latest-decisions.ts'
import { tellBoots } from '../measure/boot-log.ts'
import { PoolMeasures } from '../measure/pool-measures.ts'
import { readBootDiagnostics } from '../providers/end-notifications.ts'
import type { Instance, Provider } from '../providers/provider.ts'
import { fleetLoop, providerTimeoutMs, redisTimeoutMs } from '../timing.ts'
import type { ObservationWindow } from '../workers/observation-window.ts'
import type { WorkerRecord, WorkerRegistry } from '../workers/registry.ts'
import { decide } from './decide.ts'
import { Executor, endIdleHere } from './executor.ts'
import type { LaunchTicket, LaunchTickets } from './launch-tickets.ts'
import type { LeaderLease } from './leader-lease.ts'
import { viewInstances, withUnlisted } from './read-snapshot.ts'
import type { PoolSnapshot } from './snapshot.ts'

export interface AutoscalerOptions {
  readonly pools: Readonly<Record<string, PoolSettings>>
  readonly intervalMs: number
  /** A worker that was not heard of for this long is lost. */
  readonly silentAfterMs: number
  readonly provider: Provider
  /** Types of the handlers that launched workers get; left out: not known. */
  readonly ownTypes?: () => readonly string[]
  readonly registry: WorkerRegistry
  readonly queues: FleetQueues
  readonly leaderLease: Pick<LeaderLease, 'hold'>
  readonly observation: ObservationWindow
  readonly tickets: LaunchTickets
  readonly journal: Journal
  readonly latest: LatestDecisions
  readonly log: FastifyBaseLogger
  readonly clock?: () => number
}

export interface TickCounts {
  readonly decisions: number
  readonly actions: number
}

/** What all pools of a tick share. Tickets are read first and workers last: see LaunchTickets, and below. */
interface Reading {
  readonly epoch: number
  readonly tickets: ReadonlyMap<string, LaunchTicket>
  readonly instances: readonly Instance[]
  readonly workers: readonly WorkerRecord[]
}

/** In one entry; more come up at once in a large fleet only. */
const journaledBoots = 50

export class Autoscaler {
  readonly #options: AutoscalerOptions
  readonly #clock: () => number
  readonly #loop: Loop<TickCounts>
  readonly #executor: Executor
  readonly #measures = new Map<string, PoolMeasures>()
  readonly #news = new ReasonNews()
  #epoch: number | undefined

  constructor(options: AutoscalerOptions) {
    this.#options = options
    this.#clock = options.clock ?? Date.now
    const { intervalMs, log, provider, registry, tickets } = options
    this.#loop = new Loop({ ...fleetLoop, name: 'autoscaler', intervalMs, log, run: () => this.#run() })
    this.#executor = new Executor({ provider, registry, tickets, log, clock: this.#clock })
  }

  /** Begins to tick. Calling twice is safe. */
  start(): void {
    this.#loop.start()
  }

  /** Ticks soon: something happened. */
  wake(): void {
    this.#loop.wake()
  }

  /**
   * One tick, or the one under way. Another node holds the leader lease: nothing is launched.
   * @throws when Redis or the provider does not answer; what was not done is done by the next tick
   */
  runOnce(): Promise<TickCounts> {
    return this.#loop.runOnce()
  }

  /** Returns when no tick is under way and none will come. Calling twice is safe. */
  stop(): Promise<void> {
    return this.#loop.stop()
  }

  /** A manual action ends the instance: that is no failed launch. */
  expectEnd(queue: string, instanceId: string): void {
    this.#measuresOf(queue).history.ending(instanceId)
  }

  async #run(): Promise<TickCounts> {
    const epoch = await this.#hold()
    if (epoch === undefined) return { decisions: 0, actions: await endIdleHere(this.#options, this.#clock()) }
    const { provider, registry, pools } = this.#options
    const tickets = await this.#readTickets()
    // Read before the workers: the worker of an instance that registers in between must not look unmanaged.
    const instances = await within(providerTimeoutMs, 'The provider (list)', provider.list())
    const workers = await within(redisTimeoutMs, 'Redis (workers)', registry.all())
    const reading = { epoch, tickets, instances, workers }
    const orphans = await this.#endOrphans(reading)
    const outcomes = await Promise.allSettled(
      Object.entries(pools).map(([queue, settings]) => this.#scale(queue, settings, reading)),
    )
    let actions = orphans
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') throw outcome.reason
      actions += outcome.value
    }
    return { decisions: outcomes.length, actions }
  }

  async #hold(): Promise<number | undefined> {
    const { leaderLease, observation } = this.#options
    try {
      const epoch = await leaderLease.hold()
      observation.extend(this.#clock())
      if (epoch !== this.#epoch) this.#takeOver(epoch)
      return epoch
    } catch (error) {
      observation.close()
      throw error
    }
  }

  /** What was remembered as the last holder is stale by now. */
  #takeOver(epoch: number | undefined): void {
    if (epoch !== undefined) this.#options.log.info({ epoch }, 'this node scales the fleet')
    this.#epoch = epoch
    this.#news.clear()
    for (const measures of this.#measures.values()) measures.takeOver()
  }

  async #readTickets(): Promise<Map<string, LaunchTicket>> {
    const { pools, tickets } = this.#options
    const read = Object.keys(pools).map(async queue => [queue, await tickets.current(queue)] as const)
    return new Map(await within(redisTimeoutMs, 'Redis (launch tickets)', Promise.all(read)))
  }

  /** Orphans: instances of a queue that is not declared any more. No pool scales them in. */
  async #endOrphans({ instances, epoch }: Reading): Promise<number> {
    const { pools, provider, journal, log } = this.#options
    const orphans = instances.filter(({ pool, state }) => state === 'running' && !Object.hasOwn(pools, pool))
    for (const { id, pool } of orphans) {
      const action = { kind: 'terminate', instanceId: id, force: false, reason: 'unknown-pool' } as const
      const explanation = `No queue "${pool}" is declared; terminates ${id}.`
      const entry = { queue: pool, at: this.#clock(), epoch, desired: 0, reason: action.reason, explanation }
      await within(redisTimeoutMs, 'Redis (journal)', journal.write({ ...entry, actions: [action] }))
      log.info({ queue: pool, ...action }, explanation)
      await within(providerTimeoutMs, 'The provider (terminate)', provider.terminate([id]))
    }
    return orphans.length
  }

  async #scale(queue: string, settings: PoolSettings, reading: Reading): Promise<number> {
    const { latest, journal, provider, log } = this.#options
    const { epoch, workers } = reading
    const ticket = reading.tickets.get(queue) as LaunchTicket
    const now = this.#clock()
    const inputs = await this.#read(queue, settings, reading, ticket, now)
    const decision = decide(inputs, now)
    // Before the decision: it came before it, and a reader of the newest entry finds what was decided.
    await this.#tellBoots(queue, reading, decision.desired, now)
    if (this.#news.observe(queue, decision, now)) {
      const bootDiagnostics = await readBootDiagnostics(provider, decision.actions, log)
      const named = decision.actions.some(({ kind }) => kind === 'launch') ? { decisionId: ticket.id } : {}
      const entry = { queue, at: now, epoch, ...decision, ...named, ...bootDiagnostics, inputs }
      await within(redisTimeoutMs, 'Redis (journal)', journal.write(entry))
      log.info({ queue, desired: decision.desired, reason: decision.reason }, decision.explanation)
    }
    const { history, bootLog } = this.#measuresOf(queue)
    const boot = bootLog.medians
    const decided = { at: now, epoch, decision, inputs, ...(boot !== undefined && { boot }) }
    await within(redisTimeoutMs, 'Redis (latest decision)', latest.write(queue, decided))
    const occasion = { queue, slots: settings.slots, ticket, workers, history }
    await this.#executor.carryOut(decision.actions, occasion, async () => (await this.#hold()) === epoch)
    return decision.actions.length
  }

  /** Journals which instances came up since the last tick. */
  async #tellBoots(queue: string, reading: Reading, desired: number, now: number): Promise<void> {
    const { journal, log } = this.#options
    const ours = reading.instances.filter(({ pool }) => pool === queue)
    const news = this.#measuresOf(queue).bootLog.observe(ours, reading.workers)
    if (news.length === 0) return
    const explanation = tellBoots(news)
    log.info({ queue }, explanation)
    const actions = news.slice(0, journaledBoots)
    const entry = { queue, at: now, epoch: reading.epoch, desired, reason: 'booted' as const, explanation, actions }
    await within(redisTimeoutMs, 'Redis (journal)', journal.write(entry))
  }

  async #read(
    queue: string,
    settings: PoolSettings,
    reading: Reading,
    ticket: LaunchTicket,
    now: number,
  ): Promise<PoolSnapshot> {
    const { queues, silentAfterMs, observation, provider } = this.#options
    const types = await this.#launchableTypes(queue, reading, now)
    const all = await within(redisTimeoutMs, 'Redis (load)', queues.load(queue, settings.targetWaitMs, types))
    // Read after the workers: a worker seen draining takes no lease after that.
    const leases = await within(redisTimeoutMs, 'Redis (leases)', queues.leasesByWorker(queue))
    const isShown = provider.endsWithNode || this.#executor.launchedLast(queue, ticket)
    const instances = isShown ? reading.instances : withUnlisted(reading.instances, ticket, now)
    const seen = viewInstances(queue, instances, reading.workers, leases, now - silentAfterMs)
    const { load, views } = onlyUseful(all, seen, reading.workers)
    const ours = instances.filter(({ pool }) => pool === queue)
    const measured = this.#measuresOf(queue).observe(load, ours, views, now)
    return { queue, settings, ...measured, instances: views, silentAfterMs, observedSince: observation.since(now) }
  }

  /** Undefined, so that all counts, when the types of launched workers are not known. */
  async #launchableTypes(queue: string, { instances, workers }: Reading, now: number): Promise<string[] | undefined> {
    const { registry, ownTypes, silentAfterMs } = this.#options
    const ids = new Set(instances.filter(({ pool }) => pool === queue).map(({ id }) => id))
    const launched = workers.filter(
      ({ instanceId, state, lastSeenAt }) =>
        instanceId !== undefined && ids.has(instanceId) && state !== 'stopped' && lastSeenAt >= now - silentAfterMs,
    )
    const remembered = await within(redisTimeoutMs, 'Redis (types)', registry.launchedTypes(queue))
    const declared = launchableTypes([], launched, remembered)
    if (launched.length > 0 && declared.join() !== [...remembered].join())
      await within(redisTimeoutMs, 'Redis (types)', registry.rememberLaunchedTypes(queue, declared))
    const types = launchableTypes(ownTypes?.() ?? [], launched, remembered)
    return types.length === 0 ? undefined : types
  }

  #measuresOf(queue: string): PoolMeasures {
    const known = this.#measures.get(queue)
    if (known !== undefined) return known
    const created = new PoolMeasures()
    this.#measures.set(queue, created)
    return created
  }
}
