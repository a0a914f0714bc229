/**
 * Heartbeats: one call names all that the worker holds. It is a long poll, so that a cancel or drain order arrives at
 * once, and it is over early enough for the next one to extend the leases in time.
 */
import type { Logger } from 'pino'
import type {
  HeartbeatReply,
  HeartbeatRequest,
  Interruption,
  WorkerDescription,
} from '../../contract/worker-protocol.ts'
import { Backoff, pause } from '../../retry.ts'
import type { AttemptTable } from '../attempts/attempt-table.ts'
import { type CallOptions, hasCode, type NodeClient, NodeError } from '../node/node-client.ts'

export interface HeartbeatEvents {
  /** Before each heartbeat: what is named in it from now on has to be true. */
  readonly onBeat: () => void
  /** The first heartbeat was accepted: the worker may claim. */
  readonly onRegistered: () => void
  readonly onStop: (order: HeartbeatReply['stop'][number]) => void
  readonly onDrain: () => void
  /** Which handlers the nodes have, with each reply. */
  readonly onHandlers: (digest: string | undefined) => void
  /** The nodes do not let this worker in. */
  readonly onRefused: (error: NodeError) => void
}

export interface HeartbeatOptions {
  readonly client: NodeClient
  readonly attempts: AttemptTable
  readonly worker: Omit<WorkerDescription, 'types'>
  readonly log: Logger
  readonly events: HeartbeatEvents
}

const longestIntervalMs = 5000
/** A lease that the open heartbeat does not name cannot be cancelled through it: after this long a new one begins. */
const uncoveredMs = 500
const renewAtMostEveryMs = 1000
/** A node that has just started may not know yet what the others know; one that keeps refusing means it. */
const refusalsToBelieve = 3
/** The least pause after a reply that came early: no busy loop against a faulty node. */
const leastBetweenMs = 25

export class HeartbeatLoop {
  readonly #options: HeartbeatOptions
  readonly #stopping = new AbortController()
  readonly #backoff = new Backoff(100, 2000)
  #renewal: AbortController | undefined
  #sentAtMs = Number.NEGATIVE_INFINITY
  #registered = false
  /** How often in a row the nodes did not let this worker in. */
  #refusals = 0
  #ended: Promise<void> | undefined
  state: HeartbeatRequest['state'] = 'ready'
  /** What the slots can run; set before `start`. */
  types: string[] = []
  /** What the nodes said last. */
  #handlers: string | undefined
  /** What the machine has said of its end, if anything. */
  interruption: Interruption | undefined

  constructor(options: HeartbeatOptions) {
    this.#options = options
  }

  get isStarted(): boolean {
    return this.#ended !== undefined
  }

  get isRegistered(): boolean {
    return this.#registered
  }

  start(): void {
    this.#ended ??= this.#run()
  }

  /** Ends the loop, and the call that is open. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#ended
  }

  /** The open heartbeat ends and a new one begins: to tell of a new state at once. */
  renew(): void {
    this.#renewal?.abort()
  }

  /**
   * One heartbeat, with all leases; what the reply orders is passed on.
   * @throws NodeError
   */
  async beat(
    extra: Partial<Pick<HeartbeatRequest, 'progress' | 'logs' | 'waitMs'>>,
    options: CallOptions,
  ): Promise<HeartbeatReply> {
    const { client, attempts, events } = this.#options
    const worker = { ...this.#options.worker, types: this.types }
    events.onBeat()
    const sentAtMs = performance.now()
    const { state, interruption } = this
    const request = { worker, state, leases: attempts.refs(), ...extra }
    const reply = await client.heartbeat(interruption === undefined ? request : { ...request, interruption }, options)
    if (reply.token !== undefined) client.renewToken(reply.token)
    attempts.leaseMs = reply.leaseMs
    attempts.extended(sentAtMs)
    if (!this.#registered) {
      this.#registered = true
      events.onRegistered()
    }
    for (const order of reply.stop) events.onStop(order)
    if (reply.drain) events.onDrain()
    this.#handlers = reply.handlers
    events.onHandlers(reply.handlers)
    return reply
  }

  async #run(): Promise<void> {
    const watch = setInterval(() => this.#renewIfUncovered(), uncoveredMs)
    while (!this.#stopping.signal.aborted) await this.#once()
    clearInterval(watch)
  }

  async #once(): Promise<void> {
    const intervalMs = Math.min(this.#options.attempts.leaseMs / 3, longestIntervalMs)
    // The first one says hello, and has no time to wait.
    const waitMs = this.#registered ? Math.floor(intervalMs) : 0
    this.#renewal = new AbortController()
    const signal = AbortSignal.any([this.#renewal.signal, this.#stopping.signal])
    this.#sentAtMs = performance.now()
    const { client } = this.#options
    const { moveCount } = client
    const before = this.#handlers
    try {
      const reply = await this.beat({ waitMs }, { waitMs, signal })
      this.#backoff.reset()
      this.#refusals = 0
      const tookMs = performance.now() - this.#sentAtMs
      // A node that leaves answers at once: the next one holds the following heartbeat open.
      const hadNews =
        reply.stop.length > 0 || reply.drain || reply.handlers !== before || client.moveCount !== moveCount
      if (waitMs > 0 && tookMs < waitMs / 2) await pause(hadNews ? leastBetweenMs : waitMs - tookMs, signal)
    } catch (error) {
      if (signal.aborted) {
        await pause(leastBetweenMs, this.#stopping.signal)
        return
      }
      this.#tell(error)
      await this.#backoff.wait(
        this.#stopping.signal,
        error instanceof NodeError ? Math.min(error.retryAfterMs, 1000) : 0,
      )
    }
  }

  #tell(error: unknown): void {
    const { log, events } = this.#options
    const isRefusal = error instanceof NodeError && [401, 403].includes(error.status)
    this.#refusals = isRefusal ? this.#refusals + 1 : 0
    if (isRefusal && (!this.#registered || this.#refusals >= refusalsToBelieve)) events.onRefused(error)
    else if (hasCode(error, 'drained_worker')) events.onDrain()
    else if (this.#backoff.failureCount === 0) log.warn({ err: error }, 'a heartbeat failed; trying again')
  }

  #renewIfUncovered(): void {
    if (performance.now() - this.#sentAtMs < renewAtMostEveryMs) return
    if (this.#options.attempts.hasUncovered(this.#sentAtMs, uncoveredMs)) this.renew()
  }
}
