/**
 * What an operator may ask of the fleet: more instances, or the end of one. Both are journaled with the reason `manual`
 * before they are carried out, and go the way that the autoscaler goes: an instance is ended once its worker is cordoned
 * and holds nothing, unless force is asked for.
 */
import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { PoolSettings } from '../../settings/settings.ts'
import { within } from '../../within.ts'
import type { FleetQueues } from '../fleet-queues.ts'
import type { Journal } from '../journal/journal.ts'
import type { LatestDecisions } from '../journal/latest-decisions.ts'
import type { Provider } from '../providers/provider.ts'
import { providerTimeoutMs, redisTimeoutMs } from '../timing.ts'
import type { WorkerRecord, WorkerRegistry } from '../workers/registry.ts'

export interface ManualActionsOptions {
  readonly pools: Readonly<Record<string, PoolSettings>>
  readonly provider: Provider | undefined
  readonly registry: WorkerRegistry
  readonly queues: FleetQueues
  readonly journal: Journal
  readonly latest: LatestDecisions
  /** Told before an instance is ended: that is no failed launch. */
  readonly expectEnd: (queue: string, instanceId: string) => void
  readonly log: FastifyBaseLogger
  readonly clock: () => number
}

export type SpawnOutcome =
  | { readonly outcome: 'launched'; readonly instanceIds: readonly string[] }
  | { readonly outcome: 'unknown-queue' | 'no-provider' }
  | { readonly outcome: 'at-ceiling'; readonly max: number }
  | { readonly outcome: 'launch-failed'; readonly message: string }

export type EndOutcome =
  | {
      /** A worker that somebody else started is only ever drained: its instance is not ours to end. */
      readonly outcome: 'draining' | 'terminating'
      readonly instanceId: string
      readonly workerIds: readonly string[]
      /** Jobs that were taken from its workers and went back. */
      readonly returned: number
    }
  | { readonly outcome: 'unknown-instance' }

/** Longest time to wait for the jobs of one worker to go back. */
const returnTimeoutMs = 10_000

export class ManualActions {
  readonly #options: ManualActionsOptions

  constructor(options: ManualActionsOptions) {
    this.#options = options
  }

  /** Launches up to `count` instances on top of what there is, within the ceiling; they go when they are idle. */
  async spawn(queue: string, count: number): Promise<SpawnOutcome> {
    const { pools, provider, journal, log, clock } = this.#options
    const pool = Object.hasOwn(pools, queue) ? pools[queue] : undefined
    if (pool === undefined) return { outcome: 'unknown-queue' }
    if (provider === undefined) return { outcome: 'no-provider' }
    const listed = await within(providerTimeoutMs, 'The provider (list)', provider.list())
    const present = listed.filter(instance => instance.pool === queue && instance.state === 'running').length
    const allowed = Math.min(count, pool.maxWorkers - present)
    if (allowed < 1) return { outcome: 'at-ceiling', max: pool.maxWorkers }
    const launch = { kind: 'launch', count: allowed, reason: 'manual' } as const
    const explanation = `Somebody asked for ${count} more; has ${present}, the ceiling is ${pool.maxWorkers}; launches ${allowed}.`
    const decisionId = `manual-${randomUUID()}`
    const entry = { queue, at: clock(), desired: present + allowed, reason: launch.reason, explanation, decisionId }
    await within(redisTimeoutMs, 'Redis (journal)', journal.write({ ...entry, actions: [launch] }))
    log.info({ queue, ...launch }, 'launch because somebody asked for it')
    const request = { pool: queue, count: allowed, decisionId, slots: pool.slots }
    try {
      const launched = await within(providerTimeoutMs, 'The provider (launch)', provider.launch(request))
      return { outcome: 'launched', instanceIds: launched.map(({ id }) => id) }
    } catch (error) {
      log.error({ queue, decisionId, err: error }, 'launch failed')
      return { outcome: 'launch-failed', message: error instanceof Error ? error.message : String(error) }
    }
  }

  /**
   * Ends an instance, named by its own id or that of its worker. Its worker is cordoned at once.
   * @param force does not wait until the worker has finished what it runs: its jobs go back, no attempt spent, and the
   * instance is terminated now. Without it a worker finishes and goes; an instance that still boots ends now.
   */
  async end(id: string, force: boolean): Promise<EndOutcome> {
    const { provider, registry, log, expectEnd } = this.#options
    const listed = provider === undefined ? [] : await within(providerTimeoutMs, 'The provider (list)', provider.list())
    const named = (await this.#workers()).filter(({ workerId, instanceId }) => workerId === id || instanceId === id)
    const instance = listed.find(instance => instance.id === id || instance.id === named[0]?.instanceId)
    const queue = instance?.pool ?? named[0]?.queue
    if (queue === undefined) return { outcome: 'unknown-instance' }
    const instanceId = instance?.id ?? id
    if (instance !== undefined)
      await within(redisTimeoutMs, 'Redis (cordon)', registry.cordonInstance(instance.id, 'manual'))
    // Looked for behind the cordon: who registers from now on claims nothing.
    const workers =
      instance === undefined ? named : (await this.#workers()).filter(worker => worker.instanceId === instance.id)
    const atOnce = instance !== undefined && (force || workers.length === 0)
    await this.#record(queue, instanceId, atOnce, force)
    log.info({ queue, instanceId, force, atOnce }, 'ended because somebody asked for it')
    expectEnd(queue, instanceId)
    const workerIds = workers.map(({ workerId }) => workerId)
    for (const workerId of workerIds)
      await within(redisTimeoutMs, 'Redis (drain)', registry.requestDrain(workerId, 'manual'))
    const returned = force ? await this.#handBack(queue, workerIds) : 0
    if (provider === undefined || !atOnce) return { outcome: 'draining', instanceId, workerIds, returned }
    await within(providerTimeoutMs, 'The provider (terminate)', provider.terminate([instanceId], { force }))
    return { outcome: 'terminating', instanceId, workerIds, returned }
  }

  async #workers(): Promise<WorkerRecord[]> {
    return await within(redisTimeoutMs, 'Redis (workers)', this.#options.registry.all())
  }

  async #record(queue: string, instanceId: string, atOnce: boolean, force: boolean): Promise<void> {
    const { journal, latest, clock } = this.#options
    const action = atOnce
      ? ({ kind: 'terminate', instanceId, force, reason: 'manual' } as const)
      : ({ kind: 'drain', instanceId, reason: 'manual' } as const)
    const desired = (await within(redisTimeoutMs, 'Redis (latest)', latest.read())).get(queue)?.decision.desired ?? 0
    const explanation = `Somebody asked to end ${instanceId}${force ? ' by force: its jobs go back' : ''}.`
    const entry = { queue, at: clock(), desired, reason: action.reason, explanation, actions: [action] }
    await within(redisTimeoutMs, 'Redis (journal)', journal.write(entry))
  }

  async #handBack(queue: string, workerIds: readonly string[]): Promise<number> {
    const { pools, queues } = this.#options
    if (!Object.hasOwn(pools, queue)) return 0
    let returned = 0
    for (const workerId of workerIds)
      returned += await within(
        returnTimeoutMs,
        'Redis (return of leases)',
        queues.returnLeasesOf(queue, workerId, false),
      )
    return returned
  }
}
