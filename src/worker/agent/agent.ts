/**
 * The worker: puts its actors together and walks them through their life.
 *
 *   starting ──▶ ready ──told to go, or the instance is to end──▶ draining ──▶ stopped
 *                  └── no node for long, or not let in ──▶ stopped
 *
 * Actors: NodeClient (calls), ClaimLoop (jobs in), SlotPool (jobs run), Reporter (outcomes out), HeartbeatLoop (leases held,
 * orders in), UpdateLoop (progress and logs out), CheckpointUploads (checkpoints out), Requeues (jobs back to their queue),
 * InterruptionWatch (on EC2: what is known of the end of the machine).
 */
import { hostname } from 'node:os'
import { nanoid } from 'nanoid'
import { trustedAuthorities } from '../../client/node-fetch.ts'
import type { HeartbeatReply, Interruption, Lease } from '../../contract/worker-protocol.ts'
import { pauseUntil } from '../../retry.ts'
import { version } from '../../version.ts'
import { NodeClient } from '../node/node-client.ts'
import { SlotPool } from '../slots/slot-pool.ts'
import type { HandlerDescription } from '../slots/slot-protocol.ts'
import { Attempt, type EndReason, type Outcome } from './attempt.ts'
import { ownBootReport } from './boot-report.ts'
import { ClaimLoop } from './claim-loop.ts'
import { HandlersUpdates } from './handlers-updates.ts'
import { HeartbeatLoop } from './heartbeat-loop.ts'
import { HeldLeases } from './held-leases.ts'
import { InterruptionWatch } from './interruption-watch.ts'
import { fetchBlobs } from './payload-fetch.ts'
import { Reporter } from './reporter.ts'
import { Requeues } from './requeues.ts'
import { UpdateLoop } from './update-loop.ts'
import { CheckpointUploads } from './uploads.ts'
import type { StopReason, WorkerOptions } from './worker-options.ts'

/** How long the open claim may take to come back from a node that was told of the drain, before it is cut off. */
const claimGraceMs = 500
/** How long the last results may take to get through when the worker stops. */
const lastResultsMs = 10_000
/** After the grace of a slot: it is dead by then. */
const abortedWithinMs = 4000
/** How long the last checkpoints may take to get through before their jobs go back. */
const lastCheckpointsMs = 5000
/** An interrupted instance stops its jobs this long before its end: for checkpoints, returns and results. */
const beforeEndMs = 10_000
const lastHeartbeatMs = 3000
/** For so long after handlers were replaced a job may come, or a slot may be there, of those before. */
const settlingMs = 60_000

export class Worker {
  readonly workerId: string
  /** Resolves once, when the worker has ended and holds nothing any more. */
  readonly stopped: Promise<StopReason>
  readonly #options: WorkerOptions
  readonly #client: NodeClient
  readonly #leases = new HeldLeases()
  readonly #pool: SlotPool
  readonly #requeues: Requeues
  readonly #checkpoints: CheckpointUploads
  readonly #watch: InterruptionWatch | undefined
  readonly #handlers: HandlersUpdates | undefined
  readonly #slots: number
  #heartbeat: HeartbeatLoop | undefined
  #updates: UpdateLoop | undefined
  #reporter: Reporter | undefined
  #claims: ClaimLoop | undefined
  #orphanTimer: NodeJS.Timeout | undefined
  #settleStopped: (reason: StopReason) => void = () => undefined
  #ending: Promise<void> | undefined
  /** performance.now() of the end of the instance, as far as it is known. */
  #instanceEndsAtMs = Number.POSITIVE_INFINITY
  readonly #skipWaits = new AbortController()
  #replacedAtMs = Number.NEGATIVE_INFINITY

  constructor(options: WorkerOptions) {
    this.#options = options
    const { settings, queue, log, metadataUrl, follows } = options
    this.workerId = options.workerId ?? nanoid()
    this.stopped = new Promise(resolve => {
      this.#settleStopped = resolve
    })
    this.#slots = settings.workerSlots
    const ca = trustedAuthorities(settings.caFile)
    const { nodeUrls, workerToken: token } = settings
    this.#client = new NodeClient({ nodeUrls, token, log, ...(ca !== undefined && { ca }) })
    this.#requeues = new Requeues({ client: this.#client, workerId: this.workerId, queue, log, onGone: this.#drop })
    this.#checkpoints = new CheckpointUploads(this.#client)
    this.#handlers =
      follows &&
      new HandlersUpdates({
        ...{ client: this.#client, digest: follows.digest, passEnv: settings.passEnv, log },
        onSettled: () => this.#claims?.poke(),
        onFile: (path, types) => this.#onHandlers(path, types),
      })
    this.#watch =
      metadataUrl === undefined
        ? undefined
        : new InterruptionWatch({ url: metadataUrl, log, onNotice: notice => this.#onInterruption(notice) })
    this.#pool = new SlotPool({
      slots: this.#slots,
      isolation: settings.isolation,
      heapMb: settings.workerHeapMb,
      memoryMb: settings.slotMemoryMb,
      maxBodyBytes: settings.maxBodyBytes,
      passEnv: settings.passEnv,
      handlersFile: settings.handlers === '' ? undefined : settings.handlers,
      log,
      leaseMs: () => this.#leases.leaseMs,
      isLeaseGood: attempt => this.#leases.isGood(attempt),
      isOnlyLease: attempt => this.#leases.size === 1 && this.#leases.has(attempt) && this.#requeues.isSettled,
      fetchBlobs: async (attempt, slot, signal) => await fetchBlobs(this.#client, attempt, slot, signal),
      events: {
        onOutcome: (attempt, outcome) => this.#onOutcome(attempt, outcome),
        onRequeue: attempts => this.#requeues.requeue(attempts),
        onForgotten: attempts => this.#forget(attempts),
        onRoom: () => this.#claims?.poke(),
        onUpdate: attempt => this.#updates?.note(attempt),
        onCheckpoint: (attempt, bytes, answer) => this.#checkpoints.keep(attempt, bytes, answer),
      },
    })
  }

  /** Process ids of the slots. */
  get slotPids(): number[] {
    return this.#pool.pids
  }

  /**
   * Starts the slots and then the calls to the nodes; resolves when the first slot is ready. A node need not be there yet.
   * @throws StartupError when the handlers cannot be loaded
   */
  async start(): Promise<void> {
    const { settings, queue, log } = this.#options
    let types: string[]
    try {
      types = (await this.#pool.start()).map(({ type }) => type)
    } catch (error) {
      if (this.#ending !== undefined) return
      this.#pool.stop()
      await this.#client.close()
      throw error
    }
    if (this.#ending !== undefined) return
    const { instanceId } = this.#options
    const worker = {
      workerId: this.workerId,
      queue,
      slots: this.#slots,
      types,
      ...(instanceId === undefined ? {} : { instanceId }),
      host: hostname(),
      pid: process.pid,
      version,
      startedAt: new Date().toISOString(),
      boot: ownBootReport(),
    }
    const handlers = (): string | undefined => this.#handlers?.claimedDigest
    const base = { client: this.#client, workerId: this.workerId, queue, log, handlers }
    const heartbeat = new HeartbeatLoop({
      client: this.#client,
      leases: this.#leases,
      worker,
      log,
      events: {
        onBeat: () => this.#requeueUnowned(),
        onRegistered: () => this.#claims?.poke(),
        onStop: order => this.#onStopOrder(order),
        onDrain: () => void this.#end('ordered'),
        onHandlers: digest => this.#handlers?.heard(digest),
        onRefused: error => {
          log.fatal({ err: error }, 'the nodes do not let this worker in; check MUSTER_WORKER_TOKEN')
          void this.#stop('refused')
        },
      },
    })
    const updates = new UpdateLoop(heartbeat)
    const register = async (signal: AbortSignal): Promise<unknown> =>
      await heartbeat.beat({ waitMs: 0 }, { signal, rounds: 1 })
    this.#heartbeat = heartbeat
    this.#updates = updates
    this.#reporter = new Reporter({
      ...base,
      inlineBytes: settings.inlineBytes,
      updates,
      prefetch: () => this.#prefetch(),
      onReply: reply => this.#onReply(reply),
      onRecovered: () => this.#claims?.poke(),
      onForgotten: attempts => this.#forget(attempts),
      isHeld: attempt => this.#leases.has(attempt),
      register,
    })
    this.#claims = new ClaimLoop({
      ...base,
      prefetch: () => (this.#mayClaim() ? this.#prefetch() : 0),
      onReply: reply => this.#onReply(reply),
      onDrain: () => void this.#end('ordered'),
      register,
    })
    heartbeat.start()
    this.#claims.start()
    this.#watch?.start()
    const orphanMs = settings.workerOrphanMs
    this.#orphanTimer = setInterval(() => this.#checkOrphaned(orphanMs), Math.min(1000, orphanMs / 4))
    log.info(
      { workerId: this.workerId, queue, slots: this.#slots, types, nodeUrls: settings.nodeUrls },
      'worker started',
    )
  }

  /**
   * Stops claiming, requeues what has not started, lets running jobs finish for up to workerDrainMs, aborts and requeues the
   * rest, and ends. Safe to call twice.
   */
  async drain(): Promise<void> {
    await this.#end('asked')
  }

  /** Like drain, without waiting: kills what runs and requeues it. */
  async stopNow(): Promise<void> {
    this.#skipWaits.abort()
    await this.#end('asked')
  }

  /** The process stood still for a while: the nodes hear of it at once, before leases run out. */
  resumed(): void {
    this.#options.log.warn('this worker was stopped by a signal (SIGSTOP), and goes on')
    this.#heartbeat?.renew()
  }

  #onHandlers(path: string, types: readonly HandlerDescription[]): void {
    this.#pool.replaceHandlers(path, types)
    this.#replacedAtMs = performance.now()
    if (this.#heartbeat === undefined) return
    this.#heartbeat.types = types.map(({ type }) => type)
    this.#heartbeat.renew()
  }

  /** Requeues what was claimed for other handlers than a slot has: the error says nothing about the new handlers. */
  #onOutcome(attempt: Attempt, outcome: Outcome): void {
    const isSettling = performance.now() - this.#replacedAtMs < settlingMs
    if (isSettling && 'error' in outcome && outcome.error.code === 'type_unsupported') this.#requeues.requeue([attempt])
    else this.#reporter?.report(attempt, outcome)
  }

  /** Jobs to ask for, beyond those that calls on their way already ask for. */
  #prefetch(): number {
    if (this.#ending !== undefined || this.#reporter?.isBlocked !== false || this.#handlers?.isUpdating === true)
      return 0
    const asked = this.#reporter.askedCount + (this.#claims?.askedCount ?? 0)
    return Math.min(1000, Math.max(0, this.#pool.prefetch - asked))
  }

  /** A claim of its own only pays when a slot is idle and no completion is about to bring jobs. */
  #mayClaim(): boolean {
    return this.#heartbeat?.isRegistered === true && this.#pool.hasIdleSlot && this.#reporter?.askedCount === 0
  }

  #onReply(reply: { leaseMs: number; jobs: Lease[]; drain: boolean }): void {
    this.#leases.leaseMs = reply.leaseMs
    if (reply.jobs.length > 0) {
      const nowMs = performance.now()
      const attempts = reply.jobs.map(lease => new Attempt(lease, nowMs))
      for (const attempt of attempts) this.#leases.add(attempt)
      this.#offer(attempts)
    }
    if (reply.drain) void this.#end('ordered')
    this.#claims?.poke()
  }

  /** Each job keeps an owner, also when the pool fails to accept it. */
  #offer(attempts: readonly Attempt[]): void {
    try {
      this.#pool.offer(attempts)
    } catch (error) {
      this.#options.log.error({ err: error }, 'jobs could not be handed to the slots')
      this.#requeueUnowned()
    }
  }

  /** A lease that is extended while no actor here has the job would keep the job from every other worker for ever. */
  #requeueUnowned(): void {
    const unowned = this.#leases
      .attempts()
      .filter(one => !this.#pool.has(one) && this.#reporter?.has(one) !== true && !this.#requeues.has(one))
    if (unowned.length === 0) return
    const workIds = unowned.slice(0, 10).map(({ ref }) => ref.workId)
    this.#options.log.warn({ count: unowned.length, workIds }, 'jobs that no slot here has go back to their queue')
    this.#requeues.requeue(unowned)
  }

  #onStopOrder(order: HeartbeatReply['stop'][number]): void {
    const attempt = this.#leases.find(order)
    if (attempt === undefined) return
    this.#options.log.info({ workId: order.workId, reason: order.reason }, 'stopping a job')
    this.#forget([attempt])
    this.#pool.end(attempt, 'stopped')
  }

  /** Requeues at once what has not started, and tells the nodes at once. */
  #onInterruption(notice: Interruption): void {
    if (this.#heartbeat !== undefined) this.#heartbeat.interruption = notice
    if (notice.kind === 'interruption') this.#instanceEndsAtMs = performance.now() + Date.parse(notice.at) - Date.now()
    if (this.#ending !== undefined) this.#heartbeat?.renew()
    void this.#end('interrupted')
  }

  #forget(attempts: readonly Attempt[]): void {
    for (const attempt of attempts) this.#requeues.forget(attempt)
    this.#drop(attempts)
  }

  readonly #drop = (attempts: readonly Attempt[]): void => {
    this.#leases.remove(attempts)
    for (const attempt of attempts) this.#updates?.forget(attempt)
    this.#claims?.poke()
  }

  #checkOrphaned(orphanMs: number): void {
    if (performance.now() - this.#client.lastReachedMs < orphanMs) return
    this.#options.log.error({ orphanMs }, 'no node was reached for too long; this worker ends itself')
    void this.#stop('orphaned')
  }

  #end(reason: StopReason): Promise<void> {
    this.#ending ??= this.#drainAndStop(reason)
    return this.#ending
  }

  /** Stops without requeueing: no node answers. */
  async #stop(reason: StopReason): Promise<void> {
    if (this.#ending === undefined) this.#ending = this.#shutDown(reason)
    else this.#skipWaits.abort()
    await this.#ending
  }

  async #drainAndStop(reason: StopReason): Promise<void> {
    const { settings, log } = this.#options
    log.info({ workerId: this.workerId, reason }, 'worker is draining')
    if (this.#heartbeat !== undefined) this.#heartbeat.state = 'draining'
    this.#heartbeat?.renew()
    this.#pool.drain()
    await this.#claims?.stop(this.#skipWaits.signal.aborted ? 0 : claimGraceMs)
    const drainedByMs = performance.now() + settings.workerDrainMs
    // An interruption may come in the middle: then it says how long there is.
    const finishByMs = (): number =>
      this.#instanceEndsAtMs === Number.POSITIVE_INFINITY ? drainedByMs : this.#instanceEndsAtMs - beforeEndMs
    await pauseUntil(() => this.#pool.isEmpty, finishByMs, this.#skipWaits.signal)
    const ended = this.#endAll(reason === 'interrupted' ? 'interrupted' : 'requeued')
    const abortedByMs = performance.now() + abortedWithinMs
    await pauseUntil(
      () => this.#pool.isEmpty,
      () => abortedByMs,
      this.#skipWaits.signal,
    )
    this.#pool.stop()
    const keptByMs = performance.now() + lastCheckpointsMs
    const areKept = (): boolean => ended.every(({ checkpointing }) => checkpointing === undefined)
    await pauseUntil(areKept, () => keptByMs, this.#skipWaits.signal)
    // Not before they have ended here: another worker may start them at once.
    this.#requeues.requeueNow(ended)
    const deliveredByMs = performance.now() + lastResultsMs
    const areDelivered = (): boolean => this.#reporter?.isEmpty !== false
    await pauseUntil(areDelivered, () => deliveredByMs, AbortSignal.timeout(lastResultsMs))
    await this.#requeues.settled()
    await this.#shutDown(reason)
  }

  /** All that is held and has no outcome, also what a slot has and has not yet said to run. */
  #endAll(endReason: EndReason): Attempt[] {
    const held = this.#leases
      .attempts()
      .filter(attempt => attempt.endReason === undefined && this.#reporter?.has(attempt) !== true)
    for (const attempt of held) {
      this.#pool.end(attempt, endReason)
      // No slot has it.
      attempt.endReason ??= endReason
    }
    return held
  }

  async #shutDown(reason: StopReason): Promise<void> {
    clearInterval(this.#orphanTimer)
    this.#pool.stop()
    this.#reporter?.stop()
    this.#checkpoints.stop()
    await this.#watch?.stop()
    await this.#handlers?.stop()
    await this.#claims?.stop(0)
    await this.#updates?.stop()
    await this.#heartbeat?.stop()
    if (this.#heartbeat !== undefined && reason !== 'orphaned' && reason !== 'refused') {
      this.#heartbeat.state = 'stopped'
      await this.#heartbeat
        .beat({ waitMs: 0 }, { rounds: 1, signal: AbortSignal.timeout(lastHeartbeatMs) })
        .catch(() => undefined)
    }
    await this.#client.close()
    await this.#pool.ended()
    this.#options.log.info({ workerId: this.workerId, reason }, 'worker stopped')
    this.#settleStopped(reason)
  }
}
