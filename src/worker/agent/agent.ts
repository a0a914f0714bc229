/**
 * The worker: puts its actors together and walks them through their life.
 *
 *   starting ──▶ ready ──told to go, or the instance is to end──▶ draining ──▶ stopped
 *                  └── no node for long, or not let in ──▶ stopped
 *
 * Actors: NodeClient (calls), ClaimLoop (jobs in), SlotPool (jobs run), Reporter (outcomes out), HeartbeatLoop (leases
 * held, orders in), UpdateLoop (progress and logs out), CheckpointUploads (checkpoints out), Requeues (jobs back to
 * their queue), InterruptionWatch (on EC2: what is known of the end of the machine).
 */
import { hostname } from 'node:os'
import { nanoid } from 'nanoid'
import { trustedAuthorities } from '../../client/node-fetch.ts'
import type { ClaimReply, HeartbeatReply, Interruption } from '../../contract/worker-protocol.ts'
import { version } from '../../version.ts'
import { Attempt, type Outcome } from '../attempts/attempt.ts'
import { AttemptTable } from '../attempts/attempt-table.ts'
import { NodeClient } from '../node/node-client.ts'
import type { HandlerDescription } from '../protocol/slot-protocol.ts'
import { SlotPool } from '../slots/slot-pool.ts'
import { ownBootReport } from './boot-report.ts'
import { ClaimLoop } from './claim-loop.ts'
import { HandlersUpdates } from './handlers-updates.ts'
import { HeartbeatLoop } from './heartbeat-loop.ts'
import { InterruptionWatch } from './interruption-watch.ts'
import { fetchBlobs } from './payload-fetch.ts'
import { Reporter } from './reporter.ts'
import { Requeues } from './requeues.ts'
import { Shutdown } from './shutdown.ts'
import { UpdateLoop } from './update-loop.ts'
import { CheckpointUploads } from './uploads.ts'
import type { StopReason, WorkerOptions } from './worker-options.ts'

/** For so long after handlers were replaced a job may come, or a slot may be there, of those before. */
const settlingMs = 60_000

export class Worker {
  readonly workerId: string
  /** Resolves once, when the worker has ended and holds nothing any more. */
  readonly stopped: Promise<StopReason>
  readonly #options: WorkerOptions
  readonly #client: NodeClient
  readonly #attempts: AttemptTable
  readonly #pool: SlotPool
  readonly #requeues: Requeues
  readonly #watch: InterruptionWatch | undefined
  readonly #handlers: HandlersUpdates | undefined
  readonly #heartbeat: HeartbeatLoop
  readonly #reporter: Reporter
  readonly #claims: ClaimLoop
  readonly #shutdown: Shutdown
  #replacedAtMs = Number.NEGATIVE_INFINITY

  constructor(options: WorkerOptions) {
    this.#options = options
    const { settings, queue, log, metadataUrl, follows, instanceId } = options
    const { nodeUrls, workerToken: token, passEnv } = settings
    const workerId = options.workerId ?? nanoid()
    this.workerId = workerId
    const ca = trustedAuthorities(settings.caFile)
    const client = new NodeClient({ nodeUrls, token, log, ...(ca !== undefined && { ca }) })
    const attempts = new AttemptTable({
      onOutcome: (attempt, outcome) => this.#onOutcome(attempt, outcome),
      onRequeue: attempts => this.#requeues.requeue(attempts),
      onUpdate: attempt => updates.note(attempt),
      onCheckpoint: (attempt, bytes, answer) => checkpoints.keep(attempt, bytes, answer),
      onRoom: () => this.#claims.poke(),
    })
    this.#client = client
    this.#attempts = attempts
    this.#requeues = new Requeues({ client, workerId, queue, log, attempts })
    const checkpoints = new CheckpointUploads(client)
    this.#handlers =
      follows &&
      new HandlersUpdates({
        ...{ client, digest: follows.digest, passEnv, log },
        onSettled: () => this.#claims.poke(),
        onFile: (path, types) => this.#onHandlers(path, types),
      })
    if (metadataUrl !== undefined)
      this.#watch = new InterruptionWatch({ url: metadataUrl, log, onNotice: notice => this.#onInterruption(notice) })
    this.#pool = new SlotPool({
      slots: settings.workerSlots,
      isolation: settings.isolation,
      heapMb: settings.workerHeapMb,
      memoryMb: settings.slotMemoryMb,
      maxBodyBytes: settings.maxBodyBytes,
      passEnv,
      handlersFile: settings.handlers === '' ? undefined : settings.handlers,
      log,
      attempts,
      fetchBlobs: async (attempt, slot, signal) => await fetchBlobs(client, attempt, slot, signal),
    })
    const worker = {
      ...{ workerId, queue, slots: settings.workerSlots, host: hostname(), pid: process.pid, version },
      ...(instanceId === undefined ? {} : { instanceId }),
      startedAt: new Date().toISOString(),
      boot: ownBootReport(),
    }
    const onDrain = (): void => void this.#shutdown.drain('ordered')
    this.#heartbeat = new HeartbeatLoop({
      ...{ client, attempts, worker, log },
      events: {
        onBeat: () => this.#requeueUnowned(),
        onRegistered: () => this.#claims.poke(),
        onStop: order => this.#onStopOrder(order),
        onDrain,
        onHandlers: digest => this.#handlers?.heard(digest),
        onRefused: error => {
          log.fatal({ err: error }, 'the nodes do not let this worker in; check MUSTER_WORKER_TOKEN')
          void this.#shutdown.stop('refused')
        },
      },
    })
    const handlers = (): string | undefined => this.#handlers?.claimedDigest
    const register = async (signal: AbortSignal): Promise<unknown> =>
      await this.#heartbeat.beat({ waitMs: 0 }, { signal, rounds: 1 })
    const onReply = (reply: ClaimReply): void => this.#onReply(reply)
    const base = { client, workerId, queue, log, handlers, register, onReply }
    const updates = new UpdateLoop(this.#heartbeat)
    this.#reporter = new Reporter({
      ...{ ...base, attempts, updates, inlineBytes: settings.inlineBytes },
      prefetch: () => this.#prefetch(),
    })
    this.#claims = new ClaimLoop({ ...base, onDrain, prefetch: () => (this.#mayClaim() ? this.#prefetch() : 0) })
    this.#shutdown = new Shutdown({
      ...{ client, attempts, pool: this.#pool, requeues: this.#requeues, checkpoints, heartbeat: this.#heartbeat },
      ...{ updates, reporter: this.#reporter, claims: this.#claims, watch: this.#watch, handlers: this.#handlers },
      ...{ workerId, drainMs: settings.workerDrainMs, log },
    })
    this.stopped = this.#shutdown.stopped
  }

  /** Process ids of the slots. */
  get slotPids(): number[] {
    return this.#pool.pids
  }

  /**
   * Starts the slots and then the calls to the nodes; resolves when the first slot is ready. A node need not be there
   * yet.
   * @throws StartupError when the handlers cannot be loaded
   */
  async start(): Promise<void> {
    const { settings, queue, log } = this.#options
    let types: string[]
    try {
      types = (await this.#pool.start()).map(({ type }) => type)
    } catch (error) {
      if (this.#shutdown.hasBegun) return
      this.#pool.stop()
      await this.#client.close()
      throw error
    }
    if (this.#shutdown.hasBegun) return
    this.#heartbeat.types = types
    this.#heartbeat.start()
    this.#claims.start()
    this.#watch?.start()
    this.#shutdown.stopWhenOrphaned(settings.workerOrphanMs)
    log.info(
      { workerId: this.workerId, queue, slots: settings.workerSlots, types, nodeUrls: settings.nodeUrls },
      'worker started',
    )
  }

  /**
   * Stops claiming, requeues what has not started, lets running jobs finish for up to workerDrainMs, aborts and
   * requeues the rest, and ends. Safe to call twice.
   */
  async drain(): Promise<void> {
    await this.#shutdown.drain('asked')
  }

  /** Like drain, without waiting: kills what runs and requeues it. */
  async stopNow(): Promise<void> {
    this.#shutdown.skipWaits()
    await this.#shutdown.drain('asked')
  }

  /** The process stood still for a while: the nodes hear of it at once, before leases run out. */
  resumed(): void {
    this.#options.log.warn('this worker was stopped by a signal (SIGSTOP), and goes on')
    this.#heartbeat.renew()
  }

  #onHandlers(path: string, types: readonly HandlerDescription[]): void {
    this.#pool.replaceHandlers(path, types)
    this.#replacedAtMs = performance.now()
    this.#heartbeat.types = types.map(({ type }) => type)
    this.#heartbeat.renew()
  }

  /** Requeues what was claimed for other handlers than a slot has: the error says nothing about the new handlers. */
  #onOutcome(attempt: Attempt, outcome: Outcome): void {
    const isSettling = performance.now() - this.#replacedAtMs < settlingMs
    if (isSettling && 'error' in outcome && outcome.error.code === 'type_unsupported') this.#requeues.requeue([attempt])
    else this.#reporter.report(attempt, outcome)
  }

  /** Jobs to ask for, beyond those that calls on their way already ask for. */
  #prefetch(): number {
    if (this.#shutdown.hasBegun || this.#reporter.isBlocked || this.#handlers?.isUpdating === true) return 0
    const asked = this.#reporter.askedCount + this.#claims.askedCount
    return Math.min(1000, Math.max(0, this.#pool.prefetch - asked))
  }

  /** A claim of its own only pays when a slot is idle and no completion is about to bring jobs. */
  #mayClaim(): boolean {
    return this.#heartbeat.isRegistered && this.#pool.hasIdleSlot && this.#reporter.askedCount === 0
  }

  #onReply(reply: ClaimReply): void {
    this.#attempts.leaseMs = reply.leaseMs
    if (reply.jobs.length > 0) {
      const nowMs = performance.now()
      const attempts = reply.jobs.map(lease => new Attempt(lease, nowMs))
      for (const attempt of attempts) this.#attempts.add(attempt)
      this.#offer(attempts)
    }
    if (reply.drain) void this.#shutdown.drain('ordered')
    this.#claims.poke()
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
    const unowned = this.#attempts.all().filter(one => one.place === 'slots' && !this.#pool.has(one))
    if (unowned.length === 0) return
    const workIds = unowned.slice(0, 10).map(({ ref }) => ref.workId)
    this.#options.log.warn({ count: unowned.length, workIds }, 'jobs that no slot here has go back to their queue')
    this.#requeues.requeue(unowned)
  }

  #onStopOrder(order: HeartbeatReply['stop'][number]): void {
    const attempt = this.#attempts.find(order)
    if (attempt === undefined) return
    this.#options.log.info({ workId: order.workId, reason: order.reason }, 'stopping a job')
    this.#attempts.remove([attempt])
    this.#pool.end(attempt, 'stopped')
  }

  /** Requeues at once what has not started, and tells the nodes at once. */
  #onInterruption(notice: Interruption): void {
    this.#heartbeat.interruption = notice
    if (notice.kind === 'interruption')
      this.#shutdown.instanceEndsAtMs = performance.now() + Date.parse(notice.at) - Date.now()
    if (this.#shutdown.hasBegun) this.#heartbeat.renew()
    void this.#shutdown.drain('interrupted')
  }
}
