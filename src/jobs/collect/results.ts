/**
 * Collecting results. A result is handed out to one holder at a time until it is acked:
 *
 *   uncollected ──pull──▶ leased ──ack──▶ acked (readable until it expires)
 *        ▲                  │
 *        └── lease ran out, or given back
 *
 * All of it is kept (redis/writes/durable-writes.ts) before anybody is told. What a pull saw is kept with it: no
 * failover takes back a value that was handed out, nor its lease.
 */
import type { Notifier } from '../../notifier.ts'
import { connectionEpoch } from '../../redis/connect/connection.ts'
import { isRedisAway, NotDurableError } from '../../redis/redis-errors.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import type { StoredContent } from '../job-data.ts'
import { abandon, heldUnder, pull, settle } from './result-scripts.ts'

export interface PullOptions {
  /** Under which the results are held from now. Unique. */
  readonly leaseId: string
  /** At most this many results. */
  readonly top: number
  readonly leaseMs: number
  /** How long to wait for the first one. */
  readonly waitMs: number
  /** How much of inline values there is room for; the first result comes whatever its size. */
  readonly budget: ReplyBudget
  readonly includeFailed: boolean
  /** Ends the wait: the client is gone. */
  readonly signal: AbortSignal
}

/** Memory for pulled results, bounded over all pulls. */
export interface ReplyBudget {
  /** Asked before each look. @throws Problem too_many_requests */
  reserve(): number
  /** The look found nothing. */
  release(): void
}

export interface PulledResult {
  readonly workId: string
  /** Exactly one of the two. */
  readonly value?: StoredContent
  readonly failure?: { readonly code: string; readonly message: string }
}

/** Results taken in one script run: some milliseconds, so that others get their turn. */
const chunk = 500
/** A notification can get lost; nobody waits longer than this for a look of their own. */
const lookAgainMs = 1000
/**
 * After an outage or a start nothing is taken back for this long: acks of what was handed out before are on their way.
 */
const graceMs = 2000
/** The script of a pull that broke off may still lie before Redis; by then it is long gone. */
const rememberAbandonedMs = 600_000

/** Far longer than a node that was cut off may take to say that a reply did not get through. */
const sendingMs = 3_600_000

export class Results {
  readonly #queue: JobQueue
  readonly #notifier: Notifier
  #epoch: number | undefined
  #backAt = 0

  constructor(queue: JobQueue, notifier: Notifier) {
    this.#queue = queue
    this.#notifier = notifier
  }

  /**
   * The oldest results, leased under the lease id given; none when none came in time.
   * @throws whatever Redis says when it is away; results may be leased then: see mayHold()
   */
  async pull(options: PullOptions): Promise<PulledResult[]> {
    const deadline = Date.now() + options.waitMs
    for (;;) {
      // Listening starts before the look, so that what comes between the two is not missed.
      const notification = this.#nextNotification(Math.min(lookAgainMs, deadline - Date.now()), options.signal)
      const results = await this.#take(options).catch(error => {
        notification.cancel()
        throw error
      })
      if (results.length === 0) options.budget.release()
      if (results.length > 0 || Date.now() >= deadline || options.signal.aborted) {
        notification.cancel()
        return results
      }
      await notification.promise
    }
  }

  /** @returns the Work IDs that were held under this lease ("*": any) and are now acked */
  async ack(leaseId: string, workIds: readonly string[]): Promise<string[]> {
    return await this.#settle('ack', leaseId, workIds, 0)
  }

  /** Hands results back; they are pulled again, in their old place. */
  async release(leaseId: string, workIds: readonly string[]): Promise<string[]> {
    const held = await this.#settle('release', leaseId, workIds, 0)
    if (held.length > 0) this.#notifier.notify(`results:${this.#queue.name}`)
    return held
  }

  /**
   * Notes that results are about to be sent to a client that will not ack them. From then on they count as acked when
   * their node is lost; as long as it lives they can be released.
   * @returns the Work IDs that are still held under this lease
   */
  async markSending(leaseId: string, workIds: readonly string[]): Promise<string[]> {
    return await this.#settle('send', leaseId, workIds, Date.now() + sendingMs)
  }

  /** Work IDs under a lease, from its id alone. */
  async heldUnder(leaseId: string): Promise<string[]> {
    return await this.#queue.writes.run(heldUnder, [this.#queue.keys.leases], [leaseId])
  }

  /** Hands back whatever is held under these leases, now or when a pull that broke off is carried out late. */
  async abandon(leaseIds: readonly string[]): Promise<void> {
    const now = Date.now()
    const count = await this.#queue.writes.run(abandon, this.#keys(), [now, now - rememberAbandonedMs, ...leaseIds])
    if (count > 0) this.#notifier.notify(`results:${this.#queue.name}`)
  }

  async #take(options: PullOptions): Promise<PulledResult[]> {
    const results: PulledResult[] = []
    const maxBytes = options.budget.reserve()
    let bytes = 0
    while (results.length < options.top) {
      const now = Date.now()
      const wanted = Math.min(chunk, options.top - results.length)
      const call = this.#queue.writes.run(pull, this.#keys(), [
        this.#queue.bullPrefix,
        now,
        wanted,
        now + options.leaseMs,
        options.leaseId,
        options.includeFailed ? '1' : '0',
        maxBytes,
        bytes,
        this.#runOutUntil(now),
      ])
      const reply = results.length === 0 ? await call : await call.catch(afterSome)
      bytes = Number(reply.pop())
      for (let at = 0; at < reply.length; at += 3) {
        results.push(toResult(reply[at] as string, reply[at + 1] as string, reply[at + 2] as string))
      }
      if (reply.length < wanted * 3) break
    }
    return results
  }

  async #settle(
    verb: 'ack' | 'release' | 'send',
    leaseId: string,
    workIds: readonly string[],
    until: number,
  ): Promise<string[]> {
    const held: string[] = []
    for (let at = 0; at < workIds.length; at += chunk) {
      const some = workIds.slice(at, at + chunk)
      held.push(...(await this.#queue.writes.run(settle, this.#keys(), [verb, leaseId, until, ...some])))
    }
    return held
  }

  #keys(): string[] {
    const { uncollected, uncollectedDead, leased, leases, abandoned } = this.#queue.keys
    return [uncollected, uncollectedDead, leased, leases, abandoned]
  }

  /** Leases that ended up to then have run out; none of them shortly after the connection was made. */
  #runOutUntil(now: number): number {
    const epoch = connectionEpoch(this.#queue.redis)
    if (epoch !== this.#epoch) this.#backAt = now
    this.#epoch = epoch
    return now - this.#backAt < graceMs ? 0 : now
  }

  #nextNotification(ms: number, signal: AbortSignal): { promise: Promise<void>; cancel: () => void } {
    let cancel = (): void => undefined
    const promise = new Promise<void>(resolve => {
      const off = this.#notifier.on(`results:${this.#queue.name}`, () => cancel())
      const timer = setTimeout(() => cancel(), Math.max(0, ms))
      cancel = () => {
        off()
        clearTimeout(timer)
        signal.removeEventListener('abort', cancel)
        resolve()
      }
      signal.addEventListener('abort', cancel)
    })
    return { promise, cancel: () => cancel() }
  }
}

/** What came before is leased already. */
function afterSome(error: unknown): never {
  throw new NotDurableError('The pull broke off half-way; pull again.', { mayHaveHappened: true, cause: error })
}

/** True when a pull that failed with this error may have leased results. */
export const mayHold = (error: unknown): boolean =>
  isRedisAway(error) && (!(error instanceof NotDurableError) || error.mayHaveHappened)

function toResult(workId: string, kind: string, text: string): PulledResult {
  if (kind === 'dead') return { workId, failure: parseFailure(text) }
  return { workId, value: JSON.parse(text) as StoredContent }
}

/** A failed attempt's reason stands in BullMQ as "code: message". */
export function parseFailure(text: string): { code: string; message: string } {
  const match = /^([a-z][a-z0-9_]*): ([\s\S]*)$/.exec(text)
  return match === null ? { code: 'failed', message: text } : { code: match[1] as string, message: match[2] as string }
}
