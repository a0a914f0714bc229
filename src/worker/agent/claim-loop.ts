/**
 * Claims: one long poll while a slot has nothing to do. A busy worker needs none: its completions bring the next jobs.
 *
 *   resting ──a slot is idle──▶ polling ──jobs, or none in time──▶ resting
 */
import type { Logger } from 'pino'
import type { ClaimReply } from '../../contract/worker-protocol.ts'
import { Backoff } from '../../retry.ts'
import { hasCode, type NodeClient, NodeError } from '../node/node-client.ts'

export interface ClaimLoopOptions {
  readonly client: NodeClient
  readonly workerId: string
  readonly queue: string
  readonly log: Logger
  /** How many jobs to ask for now; 0: none. */
  readonly prefetch: () => number
  /** Digest of the handlers of the nodes that this worker follows; undefined: it follows none. */
  readonly handlers: () => string | undefined
  readonly onReply: (reply: ClaimReply) => void
  readonly onDrain: () => void
  /** The node does not know this worker: introduces it. */
  readonly register: (signal: AbortSignal) => Promise<unknown>
}

const waitMs = 20_000
/** An empty reply that came sooner than this was not a wait: the loop pauses, so that it never spins. */
const quickMs = 100

export class ClaimLoop {
  readonly #options: ClaimLoopOptions
  readonly #stopping = new AbortController()
  readonly #aborting = new AbortController()
  readonly #backoff = new Backoff(100, 2000)
  #asked = 0
  #wake: (() => void) | undefined
  #ended: Promise<void> | undefined

  constructor(options: ClaimLoopOptions) {
    this.#options = options
  }

  /** Jobs that the open claim asks for. */
  get askedCount(): number {
    return this.#asked
  }

  start(): void {
    this.#ended ??= this.#run()
  }

  /** The prefetch may have grown. */
  poke(): void {
    this.#wake?.()
  }

  /** Begins no more claims. The open one may still bring jobs, for at most `graceMs`; then it is cut off. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping.abort()
    this.#wake?.()
    const timer = setTimeout(() => this.#aborting.abort(), graceMs)
    await this.#ended
    clearTimeout(timer)
  }

  async #run(): Promise<void> {
    const signal = this.#stopping.signal
    while (!signal.aborted) {
      const max = Math.min(1000, this.#options.prefetch())
      if (max > 0) await this.#once(max)
      else await new Promise<void>(resolve => (this.#wake = resolve))
      this.#wake = undefined
    }
  }

  async #once(max: number): Promise<void> {
    const { client, workerId, queue, onReply, onDrain, log } = this.#options
    const startedMs = performance.now()
    const { moveCount } = client
    this.#asked = max
    try {
      const handlers = this.#options.handlers()
      const body = { workerId, queue, max, waitMs, ...(handlers !== undefined && { handlers }) }
      const reply = await client.claim(body, { waitMs, signal: this.#aborting.signal })
      this.#asked = 0
      onReply(reply)
      const wasWait = reply.jobs.length > 0 || performance.now() - startedMs > quickMs || client.moveCount !== moveCount
      if (wasWait) this.#backoff.reset()
      else await this.#backoff.wait(this.#stopping.signal)
    } catch (error) {
      this.#asked = 0
      if (this.#aborting.signal.aborted) return
      if (hasCode(error, 'drained_worker')) onDrain()
      else if (hasCode(error, 'worker_unknown')) await this.#introduce()
      else if (this.#backoff.failureCount === 0) log.warn({ err: error }, 'a claim failed; trying again')
      await this.#backoff.wait(
        this.#stopping.signal,
        error instanceof NodeError ? Math.min(error.retryAfterMs, 1000) : 0,
      )
    }
  }

  async #introduce(): Promise<void> {
    try {
      await this.#options.register(this.#stopping.signal)
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the node does not know this worker, and it cannot introduce itself now')
    }
  }
}
