/** Requeues jobs that will not run here, so that other workers can run them at once. No attempt is spent. */
import type { Logger } from 'pino'
import type { Attempt } from '../attempts/attempt.ts'
import type { AttemptTable } from '../attempts/attempt-table.ts'
import type { NodeClient } from '../node/node-client.ts'
import { checkpointKept } from './uploads.ts'

export interface RequeuesOptions {
  readonly client: NodeClient
  readonly workerId: string
  readonly queue: string
  readonly log: Logger
  readonly attempts: AttemptTable
}

const batchCount = 1000

export class Requeues {
  readonly #options: RequeuesOptions

  constructor(options: RequeuesOptions) {
    this.#options = options
  }

  /** Begins to requeue these. If no node answers, their leases run out by themselves. */
  requeue(attempts: readonly Attempt[]): void {
    this.#begin(attempts.filter(({ checkpointing }) => checkpointing === undefined))
    for (const attempt of attempts)
      if (attempt.checkpointing !== undefined && attempt.place !== 'requeues') this.#track(this.#requeueKept(attempt))
  }

  /** The same, without waiting for their checkpoints. */
  requeueNow(attempts: readonly Attempt[]): void {
    for (const { checkpointWait } of attempts) checkpointWait?.abort()
    this.#begin(attempts.filter(({ place }) => place !== 'requeues'))
  }

  /** Resolves when nothing is on its way any more. Never rejects. */
  async settled(): Promise<void> {
    const { leaving } = this.#options.attempts
    while (leaving.size > 0) await Promise.all(leaving)
  }

  #begin(attempts: readonly Attempt[]): void {
    if (attempts.length === 0) return
    this.#options.attempts.remove(attempts)
    for (let start = 0; start < attempts.length; start += batchCount)
      this.#track(this.#send(attempts.slice(start, start + batchCount)))
  }

  /** Keeps the lease until the newest checkpoint has arrived: without it no node would keep that. */
  async #requeueKept(attempt: Attempt): Promise<void> {
    attempt.place = 'requeues'
    attempt.checkpointWait = new AbortController()
    await checkpointKept(attempt, attempt.checkpointWait.signal)
    if (attempt.place === 'requeues') this.#begin([attempt])
  }

  #track(sending: Promise<void>): void {
    const { leaving } = this.#options.attempts
    leaving.add(sending)
    void sending.then(() => leaving.delete(sending))
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
