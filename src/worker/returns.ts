/** Gives leases back, so that others can run the jobs at once. No attempt is spent. */
import type { Logger } from 'pino'
import type { Attempt } from './attempt.ts'
import type { NodeClient } from './node-client.ts'

export interface ReturnsOptions {
  readonly client: NodeClient
  readonly workerId: string
  readonly queue: string
  readonly log: Logger
}

const batchCount = 1000

export class Returns {
  readonly #options: ReturnsOptions
  readonly #open = new Set<Promise<void>>()

  constructor(options: ReturnsOptions) {
    this.#options = options
  }

  /** Begins to return these. If no node can be told, their leases run out by themselves. */
  give(attempts: readonly Attempt[]): void {
    for (let start = 0; start < attempts.length; start += batchCount) {
      const sending = this.#send(attempts.slice(start, start + batchCount))
      this.#open.add(sending)
      void sending.then(() => this.#open.delete(sending))
    }
  }

  /** Nothing is on its way. */
  get isSettled(): boolean {
    return this.#open.size === 0
  }

  /** Resolves when nothing is on its way any more. Never rejects. */
  async settled(): Promise<void> {
    await Promise.all(this.#open)
  }

  async #send(attempts: readonly Attempt[]): Promise<void> {
    const { client, workerId, queue, log } = this.#options
    try {
      const { returned } = await client.giveBack({ workerId, queue, jobs: attempts.map(attempt => attempt.ref) })
      log.info({ returned, of: attempts.length }, 'returned jobs that will not run here')
    } catch (error) {
      log.warn({ err: error, count: attempts.length }, 'jobs could not be returned; their leases run out by themselves')
    }
  }
}
