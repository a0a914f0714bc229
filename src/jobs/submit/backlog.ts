/** Jobs that wait to be written, in order of arrival, and not more of them than a node can hold. */
import { Problem } from '../../errors.ts'
import { NotDurableError } from '../../redis/redis-errors.ts'
import type { BullCall } from '../bullmq/bull-batch.ts'

export interface Pending {
  readonly call: BullCall
  readonly workId: string
  /** With an Idempotency-Key: what the request was, and where its blob lies, to tell it from the job that is there. */
  readonly fingerprint: string | undefined
  readonly blobKey: string | undefined
  /** True when nobody waits for the answer any more. */
  readonly isGone: () => boolean
  /** In performance.now(). */
  readonly giveUpAt: number
  readonly bytes: number
  /** A try came to no clear end: the job may be there. */
  mayHaveHappened: boolean
  readonly resolve: (added: boolean) => void
  readonly reject: (error: unknown) => void
}

const mostCount = 20_000
const mostBytes = 64 * 1024 * 1024

export class Backlog {
  readonly #waiting: Pending[] = []
  #count = 0
  #bytes = 0

  /** Those that wait here; those that were taken and are not settled count for the limits only. */
  get length(): number {
    return this.#waiting.length
  }

  /** No job is here or on its way. */
  get isIdle(): boolean {
    return this.#count === 0
  }

  /** @throws Problem overloaded */
  checkRoom(): void {
    if (this.#count < mostCount && this.#bytes < mostBytes) return
    throw new Problem('overloaded', `${this.#count} jobs wait for Redis on this node already.`)
  }

  add(pending: Pending): void {
    this.#count += 1
    this.#bytes += pending.bytes
    this.#waiting.push(pending)
  }

  take(count: number): Pending[] {
    return this.#waiting.splice(0, count)
  }

  /** Puts back what has to be tried again, ahead of all that came later; gives up what nobody waits for any more. */
  putBack(group: readonly Pending[], error: unknown): void {
    this.#waiting.unshift(...group)
    this.giveUp(performance.now(), error)
  }

  /** Puts one back that was taken, to be written at once. */
  requeue(pending: Pending): void {
    this.#waiting.unshift(pending)
  }

  /** Refuses those whose time is over or whose submitter has gone. */
  giveUp(now: number, error: unknown): void {
    const isOver = (pending: Pending): boolean => pending.giveUpAt <= now || pending.isGone()
    if (!this.#waiting.some(isOver)) return
    const all = this.#waiting.splice(0)
    for (const pending of all) {
      if (isOver(pending)) this.reject(pending, error)
      else this.#waiting.push(pending)
    }
  }

  /** Answers one that was taken. */
  resolve(pending: Pending, added: boolean): void {
    this.#settled(pending)
    pending.resolve(added)
  }

  /** Refuses one; in words that say whether the job may be there nevertheless. */
  reject(pending: Pending, error: unknown): void {
    this.#settled(pending)
    pending.reject(pending.mayHaveHappened && !isReuse(error) ? uncertain(error) : error)
  }

  #settled({ bytes }: Pending): void {
    this.#count -= 1
    this.#bytes -= bytes
  }
}

const isReuse = (error: unknown): boolean => error instanceof Problem && error.code === 'idempotency_key_reused'

const uncertain = (error: unknown): NotDurableError =>
  new NotDurableError(
    'The job was not acknowledged in time: it may have been kept or not. Send it again; with the same Idempotency-Key it is one job.',
    { mayHaveHappened: true, cause: error },
  )
