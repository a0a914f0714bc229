/** Gives leases back, so that others can run the jobs at once. No attempt is spent. */
import type { Logger } from 'pino'
import type { NodeClient } from '../node/node-client.ts'
import type { Attempt } from './attempt.ts'
import { checkpointKept } from './uploads.ts'

export interface ReturnsOptions {
  readonly client: NodeClient
  readonly workerId: string
  readonly queue: string
  readonly log: Logger
  /** Their leases are no longer this worker's: they are about to be sent. */
  readonly onGone: (attempts: readonly Attempt[]) => void
}

const batchCount = 1000

export class Returns {
  readonly #options: ReturnsOptions
  readonly #open = new Set<Promise<void>>()
  /** Attempts whose newest checkpoint is on its way: without their leases no node would keep it. */
  readonly #waiting = new Map<Attempt, AbortController>()

  constructor(options: ReturnsOptions) {
    this.#options = options
  }

  /** Begins to return these. If no node can be told, their leases run out by themselves. */
  give(attempts: readonly Attempt[]): void {
    this.#give(attempts.filter(({ checkpointing }) => checkpointing === undefined))
    for (const attempt of attempts)
      if (attempt.checkpointing !== undefined && !this.#waiting.has(attempt)) this.#track(this.#giveKept(attempt))
  }

  /** The same, whether their checkpoints have been kept or not. */
  giveNow(attempts: readonly Attempt[]): void {
    for (const attempt of attempts) this.#waiting.get(attempt)?.abort()
    this.#give(attempts.filter(attempt => !this.#waiting.has(attempt)))
  }

  /** It is to be returned and waits for its checkpoint; its lease must hold until then. */
  has(attempt: Attempt): boolean {
    return this.#waiting.has(attempt)
  }

  /** Its lease is gone: there is nothing to return. */
  forget(attempt: Attempt): void {
    this.#waiting.get(attempt)?.abort()
    this.#waiting.delete(attempt)
  }

  /** Nothing is on its way. */
  get isSettled(): boolean {
    return this.#open.size === 0
  }

  /** Resolves when nothing is on its way any more. Never rejects. */
  async settled(): Promise<void> {
    while (this.#open.size > 0) await Promise.all(this.#open)
  }

  #give(attempts: readonly Attempt[]): void {
    if (attempts.length === 0) return
    this.#options.onGone(attempts)
    for (let start = 0; start < attempts.length; start += batchCount)
      this.#track(this.#send(attempts.slice(start, start + batchCount)))
  }

  /** A checkpoint that is on its way goes ahead of its job. */
  async #giveKept(attempt: Attempt): Promise<void> {
    const controller = new AbortController()
    this.#waiting.set(attempt, controller)
    await checkpointKept(attempt, controller.signal)
    if (this.#waiting.delete(attempt)) this.#give([attempt])
  }

  #track(sending: Promise<void>): void {
    this.#open.add(sending)
    void sending.then(() => this.#open.delete(sending))
  }

  async #send(attempts: readonly Attempt[]): Promise<void> {
    const { client, workerId, queue, log } = this.#options
    try {
      const { returned } = await client.requeue({ workerId, queue, jobs: attempts.map(attempt => attempt.ref) })
      log.info({ returned, of: attempts.length }, 'returned jobs that will not run here')
    } catch (error) {
      log.warn({ err: error, count: attempts.length }, 'jobs could not be returned; their leases run out by themselves')
    }
  }
}
