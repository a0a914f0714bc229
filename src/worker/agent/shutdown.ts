/**
 * Ends a worker, by a drain or at once:
 *
 *   claims stop ─▶ what runs may finish ─▶ the rest is aborted ─▶ last checkpoints ─▶ requeued ─▶ last results ─▶ closed
 *                                                                     no node for long, or refused ────────────────▲
 */
import type { Logger } from 'pino'
import { pauseUntil } from '../../retry.ts'
import type { Attempt, EndReason } from '../attempts/attempt.ts'
import type { AttemptTable } from '../attempts/attempt-table.ts'
import type { NodeClient } from '../node/node-client.ts'
import type { SlotPool } from '../slots/slot-pool.ts'
import type { ClaimLoop } from './claim-loop.ts'
import type { HandlersUpdates } from './handlers-updates.ts'
import type { HeartbeatLoop } from './heartbeat-loop.ts'
import type { InterruptionWatch } from './interruption-watch.ts'
import type { Reporter } from './reporter.ts'
import type { Requeues } from './requeues.ts'
import type { UpdateLoop } from './update-loop.ts'
import type { CheckpointUploads } from './uploads.ts'
import type { StopReason } from './worker-options.ts'

export interface ShutdownOptions {
  readonly client: NodeClient
  readonly attempts: AttemptTable
  readonly pool: SlotPool
  readonly requeues: Requeues
  readonly checkpoints: CheckpointUploads
  readonly heartbeat: HeartbeatLoop
  readonly updates: UpdateLoop
  readonly reporter: Reporter
  readonly claims: ClaimLoop
  readonly watch: InterruptionWatch | undefined
  readonly handlers: HandlersUpdates | undefined
  readonly workerId: string
  /** How long running jobs may take to finish. */
  readonly drainMs: number
  readonly log: Logger
}

/** How long the open claim may take to come back from a node that was told of the drain, before it is cut off. */
const claimGraceMs = 500
/** How long the last results may take to get through when the worker stops. */
const lastResultsMs = 10_000
/** After the grace of a slot: it is dead by then. */
const abortedWithinMs = 4000
/** How long the last checkpoints may take to get through before their jobs are requeued. */
const lastCheckpointsMs = 5000
/** An interrupted instance stops its jobs this long before its end: for checkpoints, requeues and results. */
const beforeEndMs = 10_000
const lastHeartbeatMs = 3000

export class Shutdown {
  /** Resolves once, when the worker has ended and holds nothing any more. */
  readonly stopped: Promise<StopReason>
  readonly #options: ShutdownOptions
  readonly #skipWaits = new AbortController()
  #settleStopped: (reason: StopReason) => void = () => undefined
  #ending: Promise<void> | undefined
  #orphanTimer: NodeJS.Timeout | undefined
  /** performance.now() of the end of the instance, as far as it is known. */
  instanceEndsAtMs = Number.POSITIVE_INFINITY

  constructor(options: ShutdownOptions) {
    this.#options = options
    this.stopped = new Promise(resolve => {
      this.#settleStopped = resolve
    })
  }

  get hasBegun(): boolean {
    return this.#ending !== undefined
  }

  /** From now on a drain waits for nothing. */
  skipWaits(): void {
    this.#skipWaits.abort()
  }

  async drain(reason: StopReason): Promise<void> {
    this.#ending ??= this.#drain(reason)
    await this.#ending
  }

  /** Stops without requeueing: no node answers. */
  async stop(reason: StopReason): Promise<void> {
    if (this.#ending === undefined) this.#ending = this.#close(reason)
    else this.skipWaits()
    await this.#ending
  }

  /** Stops the worker once no node was reached for this long. */
  stopWhenOrphaned(orphanMs: number): void {
    const { client, log } = this.#options
    const check = (): void => {
      if (performance.now() - client.lastReachedMs < orphanMs) return
      log.error({ orphanMs }, 'no node was reached for too long; this worker ends itself')
      void this.stop('orphaned')
    }
    this.#orphanTimer = setInterval(check, Math.min(1000, orphanMs / 4))
  }

  async #drain(reason: StopReason): Promise<void> {
    const { heartbeat, pool, claims, reporter, requeues, workerId, drainMs, log } = this.#options
    const { signal } = this.#skipWaits
    log.info({ workerId, reason }, 'worker is draining')
    heartbeat.state = 'draining'
    heartbeat.renew()
    pool.drain()
    await claims.stop(signal.aborted ? 0 : claimGraceMs)
    const within = (waitMs: number): (() => number) => {
      const endMs = performance.now() + waitMs
      return () => endMs
    }
    const drainedByMs = within(drainMs)
    // An interruption may come in the middle: then it says how long there is.
    const finishByMs = (): number =>
      this.instanceEndsAtMs === Number.POSITIVE_INFINITY ? drainedByMs() : this.instanceEndsAtMs - beforeEndMs
    await pauseUntil(() => pool.isEmpty, finishByMs, signal)
    const ended = this.#endAll(reason === 'interrupted' ? 'interrupted' : 'requeued')
    await pauseUntil(() => pool.isEmpty, within(abortedWithinMs), signal)
    pool.stop()
    const areKept = (): boolean => ended.every(({ checkpointing }) => checkpointing === undefined)
    await pauseUntil(areKept, within(lastCheckpointsMs), signal)
    // Not before they have ended here: another worker may start them at once.
    requeues.requeueNow(ended)
    await pauseUntil(() => reporter.isEmpty, within(lastResultsMs), AbortSignal.timeout(lastResultsMs))
    await requeues.settled()
    await this.#close(reason)
  }

  /** Ends all attempts that have no outcome, also those that their slot has not started yet. */
  #endAll(endReason: EndReason): Attempt[] {
    const { attempts, pool } = this.#options
    const held = attempts.all().filter(one => one.endReason === undefined && one.place !== 'reporter')
    for (const attempt of held) {
      pool.end(attempt, endReason)
      // No slot has it.
      attempt.endReason ??= endReason
    }
    return held
  }

  async #close(reason: StopReason): Promise<void> {
    const { client, pool, reporter, checkpoints, watch, handlers, claims, updates, heartbeat } = this.#options
    const { workerId, log } = this.#options
    clearInterval(this.#orphanTimer)
    pool.stop()
    reporter.stop()
    checkpoints.stop()
    await watch?.stop()
    await handlers?.stop()
    await claims.stop(0)
    await updates.stop()
    await heartbeat.stop()
    if (heartbeat.isStarted && reason !== 'orphaned' && reason !== 'refused') {
      heartbeat.state = 'stopped'
      const signal = AbortSignal.timeout(lastHeartbeatMs)
      await heartbeat.beat({ waitMs: 0 }, { rounds: 1, signal }).catch(() => undefined)
    }
    await client.close()
    await pool.ended()
    log.info({ workerId, reason }, 'worker stopped')
    this.#settleStopped(reason)
  }
}
