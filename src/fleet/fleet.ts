/**
 * The fleet as the rest of a node sees it: the registry of workers, the loops (autoscaler, reaper, sweeper), and what
 * operators may look at or ask for. Without a provider there is no autoscaler: workers are started by somebody else.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Notifier } from '../notifier.ts'
import type { RedisClient } from '../redis/connect/connection.ts'
import { type DurableWrites, LocalWrites } from '../redis/writes/durable-writes.ts'
import type { PoolSettings, Settings } from '../settings/settings.ts'
import { within } from '../within.ts'
import type { FleetQueues } from './fleet-queues.ts'
import { Journal, type JournalPage, type RecordedEntry } from './journal/journal.ts'
import { type LatestDecision, LatestDecisions } from './journal/latest-decisions.ts'
import type { BootMedians } from './measure/boot-log.ts'
import { type BootTimeline, bootTimeline } from './measure/boot-stages.ts'
import type { Instance, Provider } from './providers/provider.ts'
import { Autoscaler } from './scaling/autoscaler.ts'
import { LaunchTickets } from './scaling/launch-tickets.ts'
import { LeaderLease } from './scaling/leader-lease.ts'
import { type EndOutcome, ManualActions, type SpawnOutcome } from './scaling/manual-actions.ts'
import type { ReasonName } from './scaling/reasons.ts'
import type { InstanceView, PoolLoad } from './scaling/snapshot.ts'
import { Sweeper } from './scaling/sweeper.ts'
import { providerTimeoutMs } from './timing.ts'
import { ObservationWindow } from './workers/observation-window.ts'
import { Reaper } from './workers/reaper.ts'
import { type WorkerRecord, WorkerRegistry } from './workers/registry.ts'

export interface FleetOptions {
  readonly settings: Pick<Settings, 'pools' | 'leaseMs' | 'autoscaleIntervalMs'>
  readonly redis: RedisClient
  /** How cordons and launches are acknowledged; left out: once the primary has them. */
  readonly writes?: DurableWrites
  readonly queues: FleetQueues
  readonly notifier: Notifier
  readonly log: FastifyBaseLogger
  readonly provider: Provider | undefined
  /** Types of the handlers that launched workers get; left out: not known. */
  readonly ownTypes?: () => readonly string[]
  readonly clock?: () => number
}

export interface PoolStatus {
  readonly queue: string
  readonly policy: PoolSettings['policy']
  readonly min: number
  readonly max: number
  /** The five below are absent until the autoscaler has decided once, and without one. */
  readonly desired?: number
  readonly reason?: ReasonName
  readonly explanation?: string
  readonly decidedAt?: number
  readonly load?: PoolLoad
  /** How long the stages of a boot take, as medians; absent until one was seen. */
  readonly boot?: BootMedians
  /** As the latest decision saw them, and how each came up, once its worker has registered. */
  readonly instances: readonly (InstanceView & { readonly boot?: BootTimeline })[]
  /** Alive now. */
  readonly workers: readonly WorkerRecord[]
}

export interface Fleet {
  readonly registry: WorkerRegistry
  /** Starts the loops. Calling twice is safe. */
  start(): void
  /** Stops the loops, and the instances that end with the node; hands back what their workers held, frees the lease. Calling twice is safe. */
  stop(): Promise<void>
  /** What GET /fleet shows. */
  status(): Promise<PoolStatus[]>
  /** What GET /fleet/decisions shows, newest first. @throws Problem cursor_invalid */
  decisions(query: { readonly limit: number; readonly before?: string; readonly queue?: string }): Promise<JournalPage>
  /** One entry of them; undefined when there is none (any more). */
  decision(id: string): Promise<RecordedEntry | undefined>
  /** The latest decision about a queue's pool, also one that changed nothing; undefined when there was none yet. */
  latestDecision(queue: string): Promise<LatestDecision | undefined>
  /** An instance of this fleet that runs; undefined when there is none of this id. @throws the error of the provider */
  instance(id: string): Promise<Instance | undefined>
  /** See ManualActions: more instances, within the ceiling. */
  spawn(queue: string, count: number): Promise<SpawnOutcome>
  /** See ManualActions: ends an instance once it has finished what it runs, or now. Takes a worker's id, too. */
  endInstance(id: string, options: { readonly force: boolean }): Promise<EndOutcome>
}

/** A lease that outlives some missed ticks, and yet is soon free after a node was killed. */
const leaseTtlMs = (intervalMs: number): number => Math.max(5000, 3 * intervalMs)
/** Longest time to wait for Redis while stopping: it may be gone already. */
const stopTimeoutMs = 2000

export function createFleet(options: FleetOptions): Fleet {
  return new LiveFleet(options)
}

class LiveFleet implements Fleet {
  readonly registry: WorkerRegistry
  readonly #options: FleetOptions
  readonly #journal: Journal
  readonly #latest: LatestDecisions
  readonly #manualActions: ManualActions
  readonly #leaderLease: LeaderLease
  readonly #reaper: Reaper
  readonly #autoscaler: Autoscaler | undefined
  readonly #sweeper: Sweeper | undefined
  readonly #clock: () => number
  #unsubscribe: (() => void)[] = []
  #stopping: Promise<void> | undefined

  constructor(options: FleetOptions) {
    const { settings, redis, notifier, log, provider, queues } = options
    const writes = options.writes ?? new LocalWrites(redis)
    this.#options = options
    this.#clock = options.clock ?? Date.now
    const silentAfterMs = 2 * settings.leaseMs
    const intervalMs = settings.autoscaleIntervalMs
    this.registry = new WorkerRegistry({ redis, writes, notifier, log, aliveMs: silentAfterMs, clock: this.#clock })
    this.#journal = new Journal(redis)
    this.#latest = new LatestDecisions(redis)
    this.#leaderLease = new LeaderLease(redis, leaseTtlMs(intervalMs))
    const observation = new ObservationWindow(Math.max(silentAfterMs / 2, 2 * intervalMs))
    const { pools } = settings
    const base = { registry: this.registry, queues, log, clock: this.#clock }
    const shared = { ...base, intervalMs, silentAfterMs, leaderLease: this.#leaderLease, observation }
    const records = { journal: this.#journal, latest: this.#latest }
    this.#reaper = new Reaper({ ...shared, queueNames: Object.keys(pools), provider })
    this.#autoscaler =
      provider &&
      new Autoscaler({
        ...{ ...shared, ...records, pools, provider, tickets: new LaunchTickets(redis, writes) },
        ...(options.ownTypes && { ownTypes: options.ownTypes }),
      })
    this.#sweeper =
      provider &&
      new Sweeper({ provider, leaderLease: this.#leaderLease, journal: this.#journal, log, clock: this.#clock })
    const expectEnd = (queue: string, id: string): void => this.#autoscaler?.expectEnd(queue, id)
    this.#manualActions = new ManualActions({ ...base, ...records, pools, provider, expectEnd })
  }

  start(): void {
    if (this.#unsubscribe.length > 0 || this.#stopping !== undefined) return
    const { notifier, provider } = this.#options
    this.#unsubscribe.push(
      notifier.on('backlog', () => this.#autoscaler?.wake()),
      provider?.onChange(() => {
        this.#autoscaler?.wake()
        this.#reaper.wake()
      }) ?? (() => undefined),
    )
    this.#autoscaler?.start()
    this.#reaper.start()
    this.#sweeper?.start()
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async instance(id: string): Promise<Instance | undefined> {
    const { provider } = this.#options
    const listed = provider === undefined ? [] : await within(providerTimeoutMs, 'The provider (list)', provider.list())
    return listed.find(instance => instance.id === id && instance.state === 'running')
  }

  async status(): Promise<PoolStatus[]> {
    const { settings } = this.#options
    const [latest, workers] = await Promise.all([this.#latest.read(), this.registry.list()])
    return Object.entries(settings.pools).map(([queue, pool]) => {
      const base = {
        queue,
        policy: pool.policy,
        min: pool.minWorkers,
        max: pool.maxWorkers,
        workers: workers.filter(worker => worker.queue === queue),
      }
      const known = latest.get(queue)
      if (known === undefined || this.#autoscaler === undefined) return { ...base, instances: [] }
      const { at, decision, inputs, boot } = known
      const { desired, reason, explanation } = decision
      const decided = { desired, reason, explanation, decidedAt: at, ...(boot !== undefined && { boot }) }
      const instances = inputs.instances.map(instance => withBoot(instance, workers))
      return { ...base, ...decided, load: inputs.load, instances }
    })
  }

  decisions(query: {
    readonly limit: number
    readonly before?: string
    readonly queue?: string
  }): Promise<JournalPage> {
    return this.#journal.read(query)
  }

  decision(id: string): Promise<RecordedEntry | undefined> {
    return this.#journal.find(id)
  }

  async latestDecision(queue: string): Promise<LatestDecision | undefined> {
    return (await this.#latest.read()).get(queue)
  }

  spawn(queue: string, count: number): Promise<SpawnOutcome> {
    return this.#manualActions.spawn(queue, count)
  }

  endInstance(id: string, { force }: { readonly force: boolean }): Promise<EndOutcome> {
    return this.#manualActions.end(id, force)
  }

  async #stop(): Promise<void> {
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    await Promise.all([this.#autoscaler?.stop(), this.#reaper.stop(), this.#sweeper?.stop()])
    // At once: another node scales while the workers here still finish.
    await this.#orRunsOut(() => within(stopTimeoutMs, 'Redis (leader lease)', this.#leaderLease.release()))
    const { provider, notifier } = this.#options
    notifier.notify('backlog')
    await provider?.close({ stopInstances: provider.endsWithNode })
    if (provider?.endsWithNode)
      await this.#orRunsOut(() => within(stopTimeoutMs, 'Redis (return of leases)', this.#returnAll(provider)))
  }

  /** What is given back in good order, if Redis is there to take it. */
  async #orRunsOut(requeue: () => Promise<void>): Promise<void> {
    try {
      await requeue()
    } catch (error) {
      this.#options.log.warn({ err: error }, 'Redis was away while the fleet stopped: leases run out by themselves')
    }
  }

  /** Its instances are gone: what their workers held goes back now, not when the leases run out. */
  async #returnAll(provider: Provider): Promise<void> {
    for (const { workerId, instanceId, queue } of await this.registry.all()) {
      if (instanceId === undefined || !provider.manages(instanceId)) continue
      if (Object.hasOwn(this.#options.settings.pools, queue))
        await this.#options.queues.returnLeasesOf(queue, workerId, false)
      await this.registry.forget(workerId)
    }
  }
}

function withBoot(instance: InstanceView, workers: readonly WorkerRecord[]): InstanceView & { boot?: BootTimeline } {
  const worker = instance.unmanaged ? undefined : workers.find(({ instanceId }) => instanceId === instance.id)
  return worker === undefined ? instance : { ...instance, boot: bootTimeline(instance.launchedAt, worker) }
}
