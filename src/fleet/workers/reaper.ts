/**
 * Takes the jobs of lost workers back at once, and forgets the workers. A worker is lost when its instance is gone, when
 * it was silent for too long, or when it holds jobs without being registered. It also forgets workers that have stopped.
 * Returned jobs spend no attempt, and where the host was taken away with notice it is not held against them either; a worker that was only slow is told by its next heartbeat that its leases are gone.
 */
import type { FastifyBaseLogger } from 'fastify'
import { Loop } from '../../loop.ts'
import { within } from '../../within.ts'
import type { FleetQueues } from '../fleet-queues.ts'
import type { Provider } from '../providers/provider.ts'
import type { LeaderLease } from '../scaling/leader-lease.ts'
import { fleetLoop, redisTimeoutMs } from '../timing.ts'
import type { ObservationWindow } from './observation-window.ts'
import type { WorkerRecord, WorkerRegistry } from './registry.ts'

export interface ReaperOptions {
  readonly queueNames: readonly string[]
  readonly intervalMs: number
  readonly silentAfterMs: number
  /** Absent: nobody here knows of instances, only silence tells. */
  readonly provider: Provider | undefined
  readonly registry: WorkerRegistry
  readonly queues: FleetQueues
  readonly leaderLease: LeaderLease
  readonly observation: ObservationWindow
  readonly log: FastifyBaseLogger
  readonly clock?: () => number
}

export interface ReapCounts {
  readonly forgotten: number
  readonly returned: number
}

/** Longest time to wait for the list of instances. */
const listTimeoutMs = 30_000
/** Longest time to wait for the jobs of one worker to go back. */
const returnTimeoutMs = 10_000

/** Reasons that are no loss: the worker ended in good order, or its host was taken away, which no job can help. */
const hasStopped = 'it has stopped'
const wasInterrupted = 'its host was taken away'
const noLosses: readonly string[] = [hasStopped, wasInterrupted]

export class Reaper {
  readonly #options: ReaperOptions
  readonly #clock: () => number
  readonly #loop: Loop<ReapCounts>

  constructor(options: ReaperOptions) {
    this.#options = options
    this.#clock = options.clock ?? Date.now
    const { intervalMs, log } = options
    this.#loop = new Loop({ ...fleetLoop, name: 'reaper', intervalMs, log, run: () => this.#run() })
  }

  /** Begins to run. Calling twice is safe. */
  start(): void {
    this.#loop.start()
  }

  /** Runs soon: an instance ended. */
  wake(): void {
    this.#loop.wake()
  }

  /**
   * One run, or the one under way. Another node holds the leader lease: nothing is done.
   * @throws when Redis or the provider does not answer; the next run does what was not done
   */
  runOnce(): Promise<ReapCounts> {
    return this.#loop.runOnce()
  }

  /** Returns when no run is under way and none will come. Calling twice is safe. */
  stop(): Promise<void> {
    return this.#loop.stop()
  }

  async #run(): Promise<ReapCounts> {
    if (!(await this.#hold())) return { forgotten: 0, returned: 0 }
    const { registry, provider } = this.#options
    // In this order: whoever holds a lease was registered before, and whoever is registered was launched before. A name
    // that is missing from a later list is therefore gone, not on its way.
    const leases = await this.#readLeases()
    const workers = await within(redisTimeoutMs, 'Redis (workers)', registry.all())
    const listed = provider === undefined ? [] : await within(listTimeoutMs, 'The provider (list)', provider.list())
    const present = new Set(listed.map(({ id }) => id))
    const now = this.#clock()
    let returned = await this.#returnOfUnknown(leases, new Set(workers.map(({ workerId }) => workerId)))
    let forgotten = 0
    for (const worker of workers) {
      const lost = this.#whyLost(worker, present, now)
      if (lost === undefined) continue
      const why = worker.interruption === undefined || lost === hasStopped ? lost : wasInterrupted
      // A queue that is not declared any more has nothing to hand back to.
      if (this.#options.queueNames.includes(worker.queue))
        returned += await this.#return(worker.queue, worker.workerId, why)
      // Its instance is ended by the autoscaler first, which must still see whose it is.
      if (worker.instanceId !== undefined && present.has(worker.instanceId)) continue
      await within(redisTimeoutMs, 'Redis (forget)', registry.forget(worker.workerId))
      forgotten += 1
    }
    return { forgotten, returned }
  }

  async #hold(): Promise<boolean> {
    const { leaderLease, observation } = this.#options
    try {
      const epoch = await leaderLease.hold()
      observation.extend(this.#clock())
      return epoch !== undefined
    } catch (error) {
      observation.close()
      throw error
    }
  }

  async #readLeases(): Promise<Map<string, string[]>> {
    const { queueNames, queues } = this.#options
    const holders = new Map<string, string[]>()
    for (const queue of queueNames) {
      const leases = await within(redisTimeoutMs, 'Redis (leases)', queues.leasesByWorker(queue))
      holders.set(queue, [...leases.keys()])
    }
    return holders
  }

  async #returnOfUnknown(holders: ReadonlyMap<string, readonly string[]>, known: ReadonlySet<string>): Promise<number> {
    let returned = 0
    for (const [queue, workerIds] of holders) {
      for (const workerId of workerIds)
        if (!known.has(workerId)) returned += await this.#return(queue, workerId, 'not registered')
    }
    return returned
  }

  #whyLost(
    { instanceId, lastSeenAt, state }: WorkerRecord,
    present: ReadonlySet<string>,
    now: number,
  ): string | undefined {
    const { provider, silentAfterMs, observation } = this.#options
    if (instanceId !== undefined && provider?.manages(instanceId) && !present.has(instanceId))
      return 'its instance is gone'
    if (state === 'stopped') return hasStopped
    if (now - Math.max(lastSeenAt, observation.since(now)) > silentAfterMs) return 'it was silent for too long'
    return undefined
  }

  async #return(queue: string, workerId: string, why: string): Promise<number> {
    const { queues, log } = this.#options
    const returned = await within(
      returnTimeoutMs,
      'Redis (return of leases)',
      queues.returnLeasesOf(queue, workerId, !noLosses.includes(why)),
    )
    if (returned > 0) log.warn({ queue, workerId, returned }, `jobs of a worker went back: ${why}`)
    return returned
  }
}
