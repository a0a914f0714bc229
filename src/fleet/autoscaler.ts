/**
 * The scaling loop: every tick reads the whole state, decides for each pool, and applies. Level-triggered: a lost event,
 * a crash or a failed call costs one tick. One node acts at a time, under a lease.
 *
 * Duties, in order: hold the lease; read one snapshot a pool; decide; journal; apply; publish the latest decision.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Redis } from 'ioredis'
import type { PoolSettings } from '../settings.ts'
import type { Contact } from './contact.ts'
import { decide } from './decide.ts'
import type { FleetQueues } from './fleet-queues.ts'
import type { Journal } from './journal.ts'
import { keys } from './keys.ts'
import { LaunchHistory } from './launch-history.ts'
import type { LeaderLease } from './leader-lease.ts'
import { Loop } from './loop.ts'
import type { Instance, Provider } from './providers/provider.ts'
import { buildSnapshot, viewInstances } from './read-snapshot.ts'
import type { WorkerRecord, WorkerRegistry } from './registry.ts'
import { ServiceTime } from './service-time.ts'
import type { Action, Decision, PoolSnapshot } from './snapshot.ts'
import { redisTimeoutMs, within } from './within.ts'

export interface AutoscalerOptions {
  readonly pools: Readonly<Record<string, PoolSettings>>
  readonly intervalMs: number
  /** A worker that was not heard of for this long is lost. */
  readonly silentAfterMs: number
  readonly provider: Provider
  readonly registry: WorkerRegistry
  readonly queues: FleetQueues
  readonly lease: LeaderLease
  readonly contact: Contact
  readonly journal: Journal
  readonly redis: Redis
  readonly log: FastifyBaseLogger
  readonly clock?: () => number
}

/** The latest decision about a pool, as all nodes see it. */
export interface LatestDecision {
  readonly at: number
  readonly epoch: number
  readonly decision: Decision
  readonly inputs: PoolSnapshot
}

export interface TickCounts {
  readonly decisions: number
  readonly actions: number
}

/** Longest time that a tick waits for one call to the provider. */
const providerTimeoutMs = 30_000

export class Autoscaler {
  readonly #options: AutoscalerOptions
  readonly #clock: () => number
  readonly #loop: Loop<TickCounts>
  readonly #service = new Map<string, ServiceTime>()
  readonly #histories = new Map<string, LaunchHistory>()
  readonly #lastReasons = new Map<string, string>()
  #ticks = 0
  #epoch: number | undefined

  constructor(options: AutoscalerOptions) {
    this.#options = options
    this.#clock = options.clock ?? Date.now
    const { intervalMs, log } = options
    this.#loop = new Loop({ name: 'autoscaler', intervalMs, log, run: () => this.#run() })
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
   * One tick, or the one under way. Another node holds the lease: nothing is done.
   * @throws when Redis or the provider does not answer; what was not done is done by the next tick
   */
  runOnce(): Promise<TickCounts> {
    return this.#loop.runOnce()
  }

  /** Returns when no tick is under way and none will come. Calling twice is safe. */
  stop(): Promise<void> {
    return this.#loop.stop()
  }

  /** Somebody tells the instance to end by hand: that is no failed launch. */
  expectEnd(queue: string, instanceId: string): void {
    this.#historyOf(queue).ending(instanceId)
  }

  async #run(): Promise<TickCounts> {
    const epoch = await this.#hold()
    if (epoch === undefined) return { decisions: 0, actions: 0 }
    this.#ticks += 1
    const { provider, registry, pools } = this.#options
    // Read before the workers: an instance that registers in between must not look like a stranger's.
    const instances = await within(providerTimeoutMs, 'The provider (list)', provider.list())
    const workers = await within(redisTimeoutMs, 'Redis (workers)', registry.all())
    let actions = await this.#endStrays(instances, epoch)
    for (const [queue, settings] of Object.entries(pools)) {
      actions += await this.#scale(queue, settings, instances, workers, epoch)
    }
    return { decisions: Object.keys(pools).length, actions }
  }

  async #hold(): Promise<number | undefined> {
    const { lease, contact } = this.#options
    try {
      const epoch = await lease.hold()
      contact.heard(this.#clock())
      if (epoch !== this.#epoch) this.#takeOver(epoch)
      return epoch
    } catch (error) {
      contact.broken()
      throw error
    }
  }

  /** What was remembered as the last holder is stale by now. */
  #takeOver(epoch: number | undefined): void {
    if (epoch !== undefined) this.#options.log.info({ epoch }, 'this node scales the fleet')
    this.#epoch = epoch
    this.#lastReasons.clear()
    this.#histories.clear()
  }

  /** Instances of a queue that is not declared any more: nobody would ever scale them in. */
  async #endStrays(instances: readonly Instance[], epoch: number): Promise<number> {
    const { pools, provider, journal, log } = this.#options
    const strays = instances.filter(({ pool, state }) => state === 'running' && !Object.hasOwn(pools, pool))
    for (const { id, pool } of strays) {
      const action = { kind: 'terminate', instanceId: id, force: false, reason: 'unknown-pool' } as const
      const sentence = `No queue "${pool}" is declared; terminates ${id}.`
      const entry = {
        queue: pool,
        at: this.#clock(),
        epoch,
        wanted: 0,
        reason: action.reason,
        sentence,
        actions: [action],
      }
      await within(redisTimeoutMs, 'Redis (journal)', journal.write(entry))
      log.info({ queue: pool, ...action }, sentence)
      await within(providerTimeoutMs, 'The provider (terminate)', provider.terminate([id]))
    }
    return strays.length
  }

  async #scale(
    queue: string,
    settings: PoolSettings,
    instances: readonly Instance[],
    workers: readonly WorkerRecord[],
    epoch: number,
  ): Promise<number> {
    const { journal, redis, log } = this.#options
    const now = this.#clock()
    const inputs = await this.#read(queue, settings, instances, workers, now)
    const decision = decide(inputs, now)
    if (decision.actions.length > 0 || this.#lastReasons.get(queue) !== decision.reason) {
      await within(redisTimeoutMs, 'Redis (journal)', journal.write({ queue, at: now, epoch, ...decision, inputs }))
      log.info({ queue, wanted: decision.wanted, reason: decision.reason }, decision.sentence)
    }
    this.#lastReasons.set(queue, decision.reason)
    const latest: LatestDecision = { at: now, epoch, decision, inputs }
    await within(redisTimeoutMs, 'Redis (latest decision)', redis.hset(keys.latest, queue, JSON.stringify(latest)))
    for (const action of decision.actions) {
      // The lease may have run out during a slow call: then another node decides, and sees all that was done.
      if ((await this.#hold()) !== epoch) break
      await this.#apply(queue, settings, action, `${queue}-${epoch}-${this.#ticks}`, workers)
    }
    return decision.actions.length
  }

  async #read(
    queue: string,
    settings: PoolSettings,
    instances: readonly Instance[],
    workers: readonly WorkerRecord[],
    now: number,
  ): Promise<PoolSnapshot> {
    const { queues, silentAfterMs, contact } = this.#options
    const load = await within(redisTimeoutMs, 'Redis (load)', queues.load(queue, settings.targetWaitMs))
    const leases = await within(redisTimeoutMs, 'Redis (leases)', queues.leasesByWorker(queue))
    const views = viewInstances(queue, instances, workers, leases, now - silentAfterMs)
    const history = this.#historyOf(queue)
    const ours = instances.filter(({ pool }) => pool === queue)
    history.observe(ours, views, now)
    const serviceMs = this.#serviceOf(queue).observe(load, now)
    return buildSnapshot(queue, settings, load, serviceMs, {
      instances: views,
      failures: history.failures,
      silentAfterMs,
      hearingSince: contact.since(now),
    })
  }

  async #apply(
    queue: string,
    settings: PoolSettings,
    action: Action,
    decisionId: string,
    workers: readonly WorkerRecord[],
  ): Promise<void> {
    const { log } = this.#options
    log.info({ queue, decisionId, ...action }, `${action.kind} because of ${action.reason}`)
    if (action.kind === 'launch') return await this.#launch(queue, settings, action.count, decisionId)
    if (action.kind === 'drain') return await this.#drain(queue, action.instanceId, action.reason, workers)
    const history = this.#historyOf(queue)
    if (action.reason === 'boot-timeout') history.neverBooted(action.instanceId, this.#clock())
    history.ending(action.instanceId)
    const { provider } = this.#options
    await within(
      providerTimeoutMs,
      'The provider (terminate)',
      provider.terminate([action.instanceId], { force: action.force }),
    )
  }

  /** A launch that fails is tried again by a later tick, at the pace of the launch-backoff rule. */
  async #launch(queue: string, { slots }: PoolSettings, count: number, decisionId: string): Promise<void> {
    const { provider, log } = this.#options
    const history = this.#historyOf(queue)
    try {
      const launched = await within(
        providerTimeoutMs,
        'The provider (launch)',
        provider.launch({ pool: queue, count, decisionId, slots }),
      )
      for (const { id, launchedAt } of launched) history.launched(id, decisionId, launchedAt)
    } catch (error) {
      history.failed(decisionId, this.#clock())
      log.error({ queue, decisionId, err: error }, 'launch failed')
    }
  }

  async #drain(queue: string, instanceId: string, reason: string, workers: readonly WorkerRecord[]): Promise<void> {
    this.#historyOf(queue).ending(instanceId)
    for (const worker of workers.filter(worker => worker.instanceId === instanceId)) {
      await within(redisTimeoutMs, 'Redis (drain)', this.#options.registry.requestDrain(worker.workerId, reason))
    }
  }

  #historyOf(queue: string): LaunchHistory {
    return getOrCreate(this.#histories, queue, () => new LaunchHistory())
  }

  #serviceOf(queue: string): ServiceTime {
    return getOrCreate(this.#service, queue, () => new ServiceTime())
  }
}

function getOrCreate<V>(map: Map<string, V>, key: string, create: () => V): V {
  const known = map.get(key)
  if (known !== undefined) return known
  const created = create()
  map.set(key, created)
  return created
}
