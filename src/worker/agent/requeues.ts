/** Requeues jobs that will not run here, so that other workers can run them at once. No attempt is spent. */
import type { Logger } from 'pino'
import type { NodeClient } from '../node/node-client.ts'
import type { Attempt } from './attempt.ts'
import { checkpointKept } from './uploads.ts'

export interface RequeuesOptions {
  readonly client: NodeClient
  readonly workerId: string
  readonly queue: string
  readonly log: Logger
  /** The worker stops extending their leases: the call is about to be sent. */
  readonly onGone: (attempts: readonly Attempt[]) => void
}

const batchCount = 1000

export class Requeues {
  readonly #options: RequeuesOptions
  readonly #open = new Set<Promise<void>>()
  /** Attempts whose newest checkpoint is on its way: without their leases no node would keep it. */
  readonly #waiting = new Map<Attempt, AbortController>()

  constructor(options: RequeuesOptions) {
    this.#options = options
  }

  /** Begins to requeue these. If no node answers, their leases run out by themselves. */
  requeue(attempts: readonly Attempt[]): void {
    this.#begin(attempts.filter(({ checkpointing }) => checkpointing === undefined))
    for (const attempt of attempts)
      if (attempt.checkpointing !== undefined && !this.#waiting.has(attempt)) this.#track(this.#requeueKept(attempt))
  }

  /** The same, without waiting for their checkpoints. */
  requeueNow(attempts: readonly Attempt[]): void {
    for (const attempt of attempts) this.#waiting.get(attempt)?.abort()
    this.#begin(attempts.filter(attempt => !this.#waiting.has(attempt)))
  }

  /** It waits for its checkpoint before it is requeued; its lease must hold until then. */
  has(attempt: Attempt): boolean {
    return this.#waiting.has(attempt)
  }

  /** Its lease is gone: there is nothing to requeue. */
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

  #begin(attempts: readonly Attempt[]): void {
    if (attempts.length === 0) return
    this.#options.onGone(attempts)
    for (let start = 0; start < attempts.length; start += batchCount)
      this.#track(this.#send(attempts.slice(start, start + batchCount)))
  }

  /** Sends the job only after its checkpoint has arrived. */
  async #requeueKept(attempt: Attempt): Promise<void> {
    const controller = new AbortController()
    this.#waiting.set(attempt, controller)
    await checkpointKept(attempt, controller.signal)
    if (this.#waiting.delete(attempt)) this.#begin([attempt])
  }

  #track(sending: Promise<void>): void {
    this.#open.add(sending)
    void sending.then(() => this.#open.delete(sending))
  }

  async #send(attempts: readonly Attempt[]): Promise<void> {
    const { client, workerId, queue, log } = this.#options
    try {
      const { returned } = await client.requeue({ workerId, queue, jobs: attempts.map(attempt => attempt.ref) })
      log.info({ returned, of: attempts.length }, 'requeued jobs that will not run here')
    } catch (error) {
      log.warn({ err: error, count: attempts.length }, 'jobs could not be requeued; their leases run out by themselves')
    }
  }
}
