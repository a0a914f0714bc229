/**
 * What follows a pull, and must come about even when Redis is away just then: each is sent at once, and again until it
 * is kept.
 *
 *   ack       the reply was sent, and the lease was not the client's own
 *   release   the client went away before it had the reply
 *   abandon   the pull broke off: what it may have leased, or may still lease, belongs to nobody
 */
import type { Logger } from 'pino'
import { Loop } from '../../loop.ts'
import type { Results } from './results.ts'

type Send = () => Promise<unknown>

const retryMs = 200
/** After an outage so many go out together. */
const atOnce = 50
const abandonedAtOnce = 500
/** Results pulled without a lease of the client's own are held this long until they are sent. */
export const replyLeaseMs = 30_000

export class Acks {
  /** On their way for the first time. */
  readonly #first = new Set<Promise<void>>()
  readonly #waiting = new Set<Send>()
  readonly #abandoned = new Map<Results, Set<string>>()
  readonly #loop: Loop

  constructor(log: Logger) {
    this.#loop = new Loop({ name: 'acks', intervalMs: retryMs, run: () => this.#sendAgain(), log })
  }

  start(): void {
    this.#loop.start()
  }

  /** Acks now, or as soon as Redis can be reached. */
  add(results: Results, leaseId: string, workIds: readonly string[]): void {
    this.#send(() => results.ack(leaseId, workIds))
  }

  /** Hands results back, likewise. */
  release(results: Results, leaseId: string, workIds: readonly string[]): void {
    this.#send(() => results.release(leaseId, workIds))
  }

  /**
   * Hands back whatever a pull that failed has leased, or leases yet, likewise; many together, since it looks at all
   * leases.
   */
  abandon(results: Results, leaseId: string): void {
    const leaseIds = this.#abandoned.get(results)
    if (leaseIds === undefined) this.#abandoned.set(results, new Set([leaseId]))
    else leaseIds.add(leaseId)
  }

  /** Sends what is left, once. Never rejects. */
  async stop(): Promise<void> {
    await this.#loop.stop()
    await Promise.all(this.#first)
    await this.#loop.runOnce().catch(() => undefined)
  }

  #send(send: Send): void {
    const sent = send().then(
      () => void this.#first.delete(sent),
      () => {
        // The loop sends it again, and says once what is wrong.
        this.#waiting.add(send)
        this.#first.delete(sent)
      },
    )
    this.#first.add(sent)
  }

  async #sendAgain(): Promise<void> {
    const sends = [...this.#waiting]
    for (const [results, leaseIds] of this.#abandoned) {
      for (const some of chunks([...leaseIds], abandonedAtOnce)) {
        await results.abandon(some)
        for (const leaseId of some) leaseIds.delete(leaseId)
      }
    }
    for (const some of chunks(sends, atOnce)) {
      await Promise.all(
        some.map(async send => {
          await send()
          this.#waiting.delete(send)
        }),
      )
    }
  }
}

const chunks = <T>(all: readonly T[], size: number): T[][] =>
  Array.from({ length: Math.ceil(all.length / size) }, (_, index) => all.slice(index * size, (index + 1) * size))
