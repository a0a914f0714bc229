/**
 * The fleet as the rest of a node sees it: the registry of workers, the two loops (autoscaler and reaper), and what
 * operators may look at or ask for. Without a provider there is no autoscaler: workers are started by somebody else.
 */
import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { Redis } from 'ioredis'
import type { Bell } from '../redis/bell.ts'
import type { PoolSettings, Settings } from '../settings.ts'
import { Autoscaler, type LatestDecision } from './autoscaler.ts'
import { Contact } from './contact.ts'
import type { FleetQueues } from './fleet-queues.ts'
import { Journal, type JournalPage } from './journal.ts'
import { keys } from './keys.ts'
import { LeaderLease } from './leader-lease.ts'
import type { Provider } from './providers/provider.ts'
import { Reaper } from './reaper.ts'
import type { ReasonName } from './reasons.ts'
import { type WorkerRecord, WorkerRegistry } from './registry.ts'
import type { InstanceView, PoolLoad } from './snapshot.ts'
import { within } from './within.ts'

export interface FleetOptions {
  readonly settings: Pick<Settings, 'pools' | 'leaseMs' | 'autoscaleIntervalMs'>
  readonly redis: Redis
  readonly queues: FleetQueues
  readonly bell: Bell
  readonly log: FastifyBaseLogger
  readonly provider: Provider | undefined
  readonly clock?: () => number
}

export interface PoolStatus {
  readonly queue: string
  readonly policy: PoolSettings['policy']
  readonly min: number
  readonly max: number
  /** The five below are absent until the autoscaler has decided once, and without one. */
  readonly wanted?: number
  readonly reason?: ReasonName
  readonly sentence?: string
  readonly decidedAt?: number
  readonly load?: PoolLoad
  /** As the latest decision saw them. */
  readonly instances: readonly InstanceView[]
  /** Alive now. */
  readonly workers: readonly WorkerRecord[]
}

export type SpawnOutcome =
  | { readonly outcome: 'launched'; readonly instanceIds: readonly string[] }
  | { readonly outcome: 'unknown-queue' | 'no-provider' }
  | { readonly outcome: 'at-ceiling'; readonly max: number }

export type DrainOutcome =
  | { readonly outcome: 'draining'; readonly workerIds: readonly string[] }
  | { readonly outcome: 'unknown-instance' }

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
  /** Launches up to `count` instances on top of what there is, within the ceiling; they go when they are idle. */
  spawn(queue: string, count: number): Promise<SpawnOutcome>
  /** Fences the worker of an instance, which finishes and ends; a booting instance ends at once. Takes a worker's id, too. */
  drainInstance(id: string): Promise<DrainOutcome>
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
  readonly #lease: LeaderLease
  readonly #reaper: Reaper
  readonly #autoscaler: Autoscaler | undefined
  readonly #clock: () => number
  #unsubscribe: (() => void)[] = []
  #stopping: Promise<void> | undefined

  constructor(options: FleetOptions) {
    const { settings, redis, bell, log, provider, queues } = options
    this.#options = options
    this.#clock = options.clock ?? Date.now
    const silentAfterMs = 2 * settings.leaseMs
    const intervalMs = settings.autoscaleIntervalMs
    this.registry = new WorkerRegistry({ redis, bell, log, aliveMs: silentAfterMs, clock: this.#clock })
    this.#journal = new Journal(redis)
    this.#lease = new LeaderLease(redis, leaseTtlMs(intervalMs))
    const contact = new Contact(Math.max(silentAfterMs / 2, 2 * intervalMs))
    const shared = {
      intervalMs,
      silentAfterMs,
      registry: this.registry,
      queues,
      lease: this.#lease,
      contact,
      log,
      clock: this.#clock,
    }
    this.#reaper = new Reaper({ ...shared, queueNames: Object.keys(settings.pools), provider })
    this.#autoscaler =
      provider && new Autoscaler({ ...shared, pools: settings.pools, provider, journal: this.#journal, redis })
  }

  start(): void {
    if (this.#unsubscribe.length > 0 || this.#stopping !== undefined) return
    const { bell, provider } = this.#options
    this.#unsubscribe.push(
      bell.on('backlog', () => this.#autoscaler?.wake()),
      provider?.onChange(() => {
        this.#autoscaler?.wake()
        this.#reaper.wake()
      }) ?? (() => undefined),
    )
    this.#autoscaler?.start()
    this.#reaper.start()
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async status(): Promise<PoolStatus[]> {
    const { redis, settings } = this.#options
    const [latest, workers] = await Promise.all([redis.hgetall(keys.latest), this.registry.list()])
    return Object.entries(settings.pools).map(([queue, pool]) => {
      const base = {
        queue,
        policy: pool.policy,
        min: pool.minWorkers,
        max: pool.maxWorkers,
        workers: workers.filter(worker => worker.queue === queue),
      }
      const text = latest[queue]
      if (text === undefined || this.#autoscaler === undefined) return { ...base, instances: [] }
      const { at, decision, inputs } = JSON.parse(text) as LatestDecision
      const { wanted, reason, sentence } = decision
      return { ...base, wanted, reason, sentence, decidedAt: at, load: inputs.load, instances: inputs.instances }
    })
  }

  decisions(query: {
    readonly limit: number
    readonly before?: string
    readonly queue?: string
  }): Promise<JournalPage> {
    return this.#journal.read(query)
  }

  async spawn(queue: string, count: number): Promise<SpawnOutcome> {
    const { settings, provider, log } = this.#options
    const pool = Object.hasOwn(settings.pools, queue) ? settings.pools[queue] : undefined
    if (pool === undefined) return { outcome: 'unknown-queue' }
    if (provider === undefined) return { outcome: 'no-provider' }
    const present = (await provider.list()).filter(
      instance => instance.pool === queue && instance.state === 'running',
    ).length
    const allowed = Math.min(count, pool.maxWorkers - present)
    if (allowed < 1) return { outcome: 'at-ceiling', max: pool.maxWorkers }
    const launch = { kind: 'launch', count: allowed, reason: 'manual' } as const
    const sentence = `Somebody asked for ${count} more; has ${present}, the ceiling is ${pool.maxWorkers}; launches ${allowed}.`
    await this.#journal.write({
      queue,
      at: this.#clock(),
      wanted: present + allowed,
      reason: 'manual',
      sentence,
      actions: [launch],
    })
    log.info({ queue, ...launch }, 'launch because somebody asked for it')
    const launched = await provider.launch({
      pool: queue,
      count: allowed,
      decisionId: `manual-${randomUUID()}`,
      slots: pool.slots,
    })
    return { outcome: 'launched', instanceIds: launched.map(({ id }) => id) }
  }

  async drainInstance(id: string): Promise<DrainOutcome> {
    const { provider, log } = this.#options
    const instance = (await provider?.list())?.find(instance => instance.id === id)
    const workers = (await this.registry.all()).filter(
      ({ workerId, instanceId }) => workerId === id || instanceId === id,
    )
    const queue = instance?.pool ?? workers[0]?.queue
    if (queue === undefined) return { outcome: 'unknown-instance' }
    const action =
      workers.length > 0
        ? ({ kind: 'drain', instanceId: id, reason: 'manual' } as const)
        : ({ kind: 'terminate', instanceId: id, force: false, reason: 'manual' } as const)
    const wanted = (await this.status()).find(pool => pool.queue === queue)?.wanted ?? 0
    await this.#journal.write({
      queue,
      at: this.#clock(),
      wanted,
      reason: 'manual',
      sentence: `Somebody asked to ${action.kind} ${id}.`,
      actions: [action],
    })
    log.info({ queue, ...action }, `${action.kind} because somebody asked for it`)
    this.#autoscaler?.expectEnd(queue, id)
    if (workers.length === 0) await provider?.terminate([id])
    for (const { workerId } of workers) await this.registry.requestDrain(workerId, 'manual')
    return { outcome: 'draining', workerIds: workers.map(({ workerId }) => workerId) }
  }

  async #stop(): Promise<void> {
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    await Promise.all([this.#autoscaler?.stop(), this.#reaper.stop()])
    const { provider, log } = this.#options
    await provider?.close({ stopInstances: provider.endsWithNode })
    try {
      if (provider?.endsWithNode) await within(stopTimeoutMs, 'Redis (return of leases)', this.#returnAll(provider))
      await within(stopTimeoutMs, 'Redis (fleet lease)', this.#lease.release())
    } catch (error) {
      log.warn({ err: error }, 'Redis was away while the fleet stopped: leases run out by themselves')
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
