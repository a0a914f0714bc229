/**
 * Carries out what was decided for a pool. Each step may be taken twice, by this node or by another:
 *
 *   launch      under the ticket that was read before the decision: the same need launches once
 *   drain       cordons the worker; `drained` ends it when it holds nothing
 *   terminate   what looks lifeless is cordoned and looked at once more: if it has come to life, it is not killed
 */
import type { FastifyBaseLogger } from 'fastify'
import type { PoolSettings } from '../../settings/settings.ts'
import { within } from '../../within.ts'
import type { LaunchHistory } from '../measure/pool-measures.ts'
import { type Instance, LaunchError, type Provider } from '../providers/provider.ts'
import { providerTimeoutMs, redisTimeoutMs } from '../timing.ts'
import type { WorkerRecord, WorkerRegistry } from '../workers/registry.ts'
import type { LaunchTicket, LaunchTickets } from './launch-tickets.ts'
import type { Action } from './snapshot.ts'

export interface ExecutorOptions {
  readonly provider: Provider
  readonly registry: WorkerRegistry
  readonly tickets: LaunchTickets
  readonly log: FastifyBaseLogger
  readonly clock: () => number
}

/** What a decision was taken on, beyond the snapshot. */
export interface Occasion {
  readonly queue: string
  readonly slots: number
  readonly ticket: LaunchTicket
  readonly workers: readonly WorkerRecord[]
  readonly history: LaunchHistory
}

interface UncertainLaunch {
  readonly ticketId: string
  readonly count: number
  readonly since: number
}

type Launch = Extract<Action, { kind: 'launch' }>
type Drain = Extract<Action, { kind: 'drain' }>
type Termination = Extract<Action, { kind: 'terminate' }>

interface Step {
  readonly of: readonly Action[]
  readonly run: (this: Executor, actions: readonly Action[], occasion: Occasion) => Promise<void>
}

/** After this time what a launch without a reply has brought shows in the list, whatever it was. */
const uncertainMs = 60_000

export class Executor {
  readonly #options: ExecutorOptions
  /** By queue: a launch whose outcome is unknown. It is repeated as it was. */
  readonly #uncertain = new Map<string, UncertainLaunch>()
  /** By queue: the ticket of the last launch of this node, of which its provider shows what is left. */
  readonly #own = new Map<string, string>()

  constructor(options: ExecutorOptions) {
    this.#options = options
  }

  /** Whether this node itself launched under the ticket before this one. */
  launchedLast(queue: string, { last }: LaunchTicket): boolean {
    return last.some(({ decisionId }) => decisionId === this.#own.get(queue))
  }

  /**
   * Drains, then ends, then launches.
   * @param mayGoOn asked before each of them: the lease may have run out during a slow call, then another node decides
   * @throws when Redis or the provider does not answer; the next decision sees what was done and what was not
   */
  async carryOut(actions: readonly Action[], occasion: Occasion, mayGoOn: () => Promise<boolean>): Promise<void> {
    const { log } = this.#options
    const { queue, ticket } = occasion
    const ends = (force: boolean): Termination[] =>
      actions.filter((action): action is Termination => action.kind === 'terminate' && action.force === force)
    const steps = [
      { of: actions.filter(action => action.kind === 'drain'), run: this.#drain },
      { of: ends(false), run: this.#terminate },
      { of: ends(true), run: this.#terminateLifeless },
      { of: actions.filter(action => action.kind === 'launch'), run: this.#launch },
    ] as readonly Step[]
    for (const { of, run } of steps) {
      if (of.length === 0) continue
      if (!(await mayGoOn())) return
      for (const action of of) {
        const named = action.kind === 'launch' ? { decisionId: ticket.id } : {}
        log.info({ queue, ...named, ...action }, `${action.kind} because of ${action.reason}`)
      }
      await run.call(this, of, occasion)
    }
  }

  async #drain(drains: readonly Drain[], { workers, history }: Occasion): Promise<void> {
    const reasons = new Map(drains.map(({ instanceId, reason }) => [instanceId, reason]))
    for (const { instanceId } of drains) history.ending(instanceId)
    await this.#cordonAll(workers, reasons)
  }

  /** A launch that fails is tried again by a later tick, at the pace of the launch-backoff rule. */
  async #launch(launches: readonly Launch[], { queue, slots, ticket, history }: Occasion): Promise<void> {
    const desired = launches.reduce((sum, { count }) => sum + count, 0)
    const { provider, log, clock } = this.#options
    const before = this.#uncertain.get(queue)
    const count = before?.ticketId === ticket.id ? before.count : desired
    let launched: readonly Instance[] = []
    try {
      launched = await within(
        providerTimeoutMs,
        'The provider (launch)',
        provider.launch({ pool: queue, count, decisionId: ticket.id, slots }),
      )
      this.#own.set(queue, ticket.id)
      for (const { id, decisionId, launchedAt } of launched) history.launched(id, decisionId, launchedAt)
    } catch (error) {
      const now = clock()
      history.failed(`${ticket.id} at ${now}`, now, error instanceof Error ? error.message : String(error))
      log.error({ queue, decisionId: ticket.id, err: error }, 'launch failed')
      if (this.#mayHaveLaunched(error, queue, { ticketId: ticket.id, count, since: now })) return
    }
    this.#uncertain.delete(queue)
    await within(redisTimeoutMs, 'Redis (launch ticket)', this.#options.tickets.useUp(queue, ticket, launched))
  }

  /** A refusal for want of room is certain. Any other failure may be a lost reply: the ticket is kept for a while. */
  #mayHaveLaunched(error: unknown, queue: string, attempt: UncertainLaunch): boolean {
    if (error instanceof LaunchError && error.failures.length > 0 && error.failures.every(({ capacity }) => capacity))
      return false
    const before = this.#uncertain.get(queue)
    const first = before?.ticketId === attempt.ticketId ? before : attempt
    this.#uncertain.set(queue, first)
    return attempt.since - first.since < uncertainMs
  }

  async #terminate(ends: readonly Termination[], { history }: Occasion): Promise<void> {
    const ids = ends.map(({ instanceId }) => instanceId)
    for (const id of ids) history.ending(id)
    const force = ends.some(({ force }) => force)
    await within(providerTimeoutMs, 'The provider (terminate)', this.#options.provider.terminate(ids, { force }))
  }

  /**
   * Cordons, then looks: who was heard of since the decision may hold a job by now. A worker that was silent drains then,
   * since its jobs went to others; one that booted late stays. An interrupted one has outlived its time, heard of or not.
   */
  async #terminateLifeless(ends: readonly Termination[], occasion: Occasion): Promise<void> {
    const { registry, log, clock } = this.#options
    const { queue, workers, history } = occasion
    const known = new Map(workers.map(worker => [worker.workerId, worker]))
    const neverSeen = ends.filter(({ instanceId }) => !workers.some(worker => worker.instanceId === instanceId))
    await within(
      redisTimeoutMs,
      'Redis (cordons)',
      Promise.all(neverSeen.map(({ instanceId, reason }) => registry.cordonInstance(instanceId, reason))),
    )
    await this.#cordonAll(workers, new Map(ends.map(({ instanceId, reason }) => [instanceId, reason])))
    const now = await within(redisTimeoutMs, 'Redis (workers)', registry.all())
    const heard = now.filter(({ workerId, state, lastSeenAt }) => {
      const before = known.get(workerId)
      return state !== 'stopped' && (before === undefined || lastSeenAt > before.lastSeenAt)
    })
    const alive = new Set(heard.map(({ instanceId }) => instanceId))
    const spared = ends.filter(({ instanceId, reason }) => reason !== 'interrupted' && alive.has(instanceId))
    for (const end of spared) {
      log.warn({ queue, ...end }, 'its worker was heard of after all: it is not terminated')
      if (neverSeen.includes(end))
        await within(redisTimeoutMs, 'Redis (cordon)', registry.uncordonInstance(end.instanceId))
    }
    const lifeless = ends.filter(end => !spared.includes(end))
    for (const { reason, instanceId } of lifeless)
      if (reason === 'boot-timeout') history.neverBooted(instanceId, clock())
    if (lifeless.length > 0) await this.#terminate(lifeless, occasion)
  }

  async #cordonAll(workers: readonly WorkerRecord[], reasons: ReadonlyMap<string, string>): Promise<void> {
    const { registry } = this.#options
    const cordons = workers.map(async ({ workerId, instanceId = '' }) => {
      const reason = reasons.get(instanceId)
      if (reason !== undefined) await registry.requestDrain(workerId, reason)
    })
    await within(redisTimeoutMs, 'Redis (drain)', Promise.all(cordons))
  }
}

/**
 * Instances on this machine while another node scales the fleet: launched under a lease that has passed on, or left by a
 * node that was killed and adopted by its successor. The other node sees their workers, but cannot end them; so one
 * that has had no work for the usual time is told to go from here. It finishes what it may have got meanwhile.
 */
export interface EndIdleOptions {
  readonly provider: Provider
  readonly registry: WorkerRegistry
  readonly pools: Readonly<Record<string, PoolSettings>>
}

/**
 * @param now in ms since the epoch
 * @returns how many were told
 */
export async function endIdleHere({ provider, registry, pools }: EndIdleOptions, now: number): Promise<number> {
  if (!provider.endsWithNode) return 0
  const instances = await within(providerTimeoutMs, 'The provider (list)', provider.list())
  const running = new Set(instances.filter(({ state }) => state === 'running').map(({ id }) => id))
  if (running.size === 0) return 0
  const workers = await within(redisTimeoutMs, 'Redis (workers)', registry.all())
  const idle = workers.filter(({ instanceId = '', drain, idleSince, queue }) => {
    const timeoutMs = pools[queue]?.idleTimeoutMs ?? 0
    return running.has(instanceId) && drain === undefined && idleSince !== undefined && now - idleSince > timeoutMs
  })
  for (const { workerId } of idle)
    await within(redisTimeoutMs, 'Redis (drain)', registry.requestDrain(workerId, 'idle'))
  return idle.length
}
