/**
 * Acks that follow a reply: a pull without a lease of the client's own is acked once the reply was sent. Should Redis be
 * away just then, the ack is kept and sent again until it is there, before the lease of the results runs out.
 */
import type { Logger } from 'pino'
import { Loop } from './loop.ts'
import type { Results } from './results.ts'

interface Ack {
  readonly results: Results
  readonly leaseId: string
  readonly workIds: readonly string[]
}

const retryMs = 200
/** Results pulled without a lease of the client's own are held this long at a time while the reply is being sent. */
export const replyLeaseMs = 30_000

export class Acks {
  readonly #waiting = new Set<Ack>()
  readonly #loop: Loop

  constructor(log: Logger) {
    this.#loop = new Loop('acks', retryMs, () => this.#send(), log)
  }

  start(): void {
    this.#loop.start()
  }

  /** Acks now, or as soon as Redis can be reached. */
  add(results: Results, leaseId: string, workIds: readonly string[]): void {
    this.#waiting.add({ results, leaseId, workIds })
    void this.#loop.runOnce()
  }

  /** Sends what is left. */
  async stop(): Promise<void> {
    await this.#loop.stop()
    await this.#loop.runOnce()
  }

  async #send(): Promise<void> {
    for (const ack of this.#waiting) {
      await ack.results.ack(ack.leaseId, ack.workIds)
      this.#waiting.delete(ack)
    }
  }
}
