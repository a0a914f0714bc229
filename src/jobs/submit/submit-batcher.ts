/**
 * A line of jobs on their way into Redis, with group commit: jobs that arrive while others are being written go
 * together, in one call for each of BullMQ's kinds of jobs. Every submitter waits for its own job.
 *
 *   backlog ──group──▶ on its way ──▶ kept: answered
 *      ▲                   │
 *      └── after a pause ──┴── Redis away, no replica: the same Work IDs again, which are the same jobs, until
 *                              ackWithinMs are over or the client has gone (replicated only; local ones are refused)
 *
 * Away for longer than that, Redis is asked by one job at a time, and all others are refused at once.
 */
import { Problem } from '../../errors.ts'
import type { Notifier } from '../../notifier.ts'
import { isRedisAway, isRedisFull, NotDurableError } from '../../redis/redis-errors.ts'
import { Script } from '../../redis/script.ts'
import type { DurableWrites } from '../../redis/writes/durable-writes.ts'
import { runBullBatch } from '../bullmq/bull-batch.ts'
import type { CancelledJob } from '../bullmq/cancel.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import type { JobData } from '../job-data.ts'
import { Backlog, type Pending } from './backlog.ts'

/** More in one call would hold up everybody else's commands (1,000 take 45 ms). */
const maxGroup = 250
/** A second group is built and sent while Redis works on the first. */
const maxGroupsInFlight = 2
const pauseMs = 100

/**
 * KEYS: cancelledData, jobs. ARGV: their Work IDs. Returns the data of each, or its record when it was cancelled, or
 * nil.
 */
const readData = new Script<(string | null)[]>(
  'read_data',
  `local out = {}
for i, workId in ipairs(ARGV) do
  out[i] = redis.call('HGET', KEYS[i + 1], 'data') or redis.call('HGET', KEYS[1], workId)
end
return out`,
)

export type NewPending = Omit<Pending, 'giveUpAt' | 'mayHaveHappened'>

export class SubmitBatcher {
  readonly #queue: JobQueue
  readonly #notifier: Notifier
  readonly #writes: DurableWrites
  readonly #ackWithinMs: number
  readonly #backlog = new Backlog()
  #inFlight = 0
  #isDue = false
  /** Since when no group was kept, in performance.now(). */
  #awaySince: number | undefined
  #pause: NodeJS.Timeout | undefined

  /** @param ackWithinMs a replicated job is acknowledged within this time, or refused */
  constructor(queue: JobQueue, notifier: Notifier, writes: DurableWrites, ackWithinMs: number) {
    this.#queue = queue
    this.#notifier = notifier
    this.#writes = writes
    this.#ackWithinMs = ackWithinMs
  }

  /** @throws Problem overloaded; NotDurableError when Redis has been away for long */
  add(job: NewPending): void {
    this.#backlog.checkRoom()
    const now = performance.now()
    if (this.#awaySince !== undefined && now - this.#awaySince > this.#ackWithinMs && !this.#backlog.isIdle)
      throw new NotDurableError('Redis is away, or has no second server; nothing was written.', {
        mayHaveHappened: false,
      })
    this.#backlog.add({ ...job, giveUpAt: now + this.#ackWithinMs, mayHaveHappened: false })
    if (this.#isDue) return
    this.#isDue = true
    setImmediate(() => {
      this.#isDue = false
      this.#flush()
    })
  }

  #flush(): void {
    while (this.#pause === undefined && this.#backlog.length > 0 && this.#inFlight < maxGroupsInFlight) {
      const group = this.#backlog.take(maxGroup)
      this.#inFlight += 1
      void this.#commit(group).finally(() => {
        this.#inFlight -= 1
        this.#flush()
      })
    }
  }

  /** Sends the jobs of a group, by script: there is one for plain jobs, for delayed and for prioritised ones. */
  async #commit(group: readonly Pending[]): Promise<void> {
    const parts = new Map<string, Pending[]>()
    for (const pending of group) {
      const part = parts.get(pending.call.command)
      if (part === undefined) parts.set(pending.call.command, [pending])
      else part.push(pending)
    }
    const outcomes = await Promise.all([...parts.values()].map(part => this.#add(part)))
    if (!outcomes.includes(true)) return
    this.#notifier.notify(`jobs:${this.#queue.name}`)
    this.#notifier.notify('backlog')
  }

  /** @returns whether anything was added; all of it has been answered then, or waits for another try */
  async #add(part: readonly Pending[]): Promise<boolean> {
    const calls = part.map(({ call }) => call)
    let added: unknown[]
    try {
      added = await runBullBatch(this.#queue, this.#writes, calls)
    } catch (error) {
      this.#fail(part, error)
      return false
    }
    this.#awaySince = undefined
    // A job without a key is new; with one, it may have been there, from the same request or from another.
    const keyed: Pending[] = []
    const refused = new Set<Pending>()
    for (const [index, pending] of part.entries()) {
      if (pending.fingerprint === undefined) this.#backlog.resolve(pending, true)
      else keyed.push(pending)
      if (added[index] === null) refused.add(pending)
    }
    if (keyed.length > 0) await this.#compare(keyed, refused).catch((error: unknown) => this.#fail(keyed, error))
    return true
  }

  #fail(part: readonly Pending[], error: unknown): void {
    if (this.#writes.reaches === 'replicated' && isRedisAway(error)) this.#tryAgain(part, error)
    else for (const pending of part) this.#backlog.reject(pending, translate(error))
  }

  #tryAgain(part: readonly Pending[], error: unknown): void {
    this.#awaySince ??= performance.now()
    const mayHaveHappened = !(error instanceof NotDurableError) || error.mayHaveHappened
    for (const pending of part) pending.mayHaveHappened ||= mayHaveHappened
    this.#backlog.putBack(part, error)
    this.#pause ??= setTimeout(
      () => {
        this.#pause = undefined
        this.#backlog.giveUp(performance.now(), error)
        this.#flush()
      },
      pauseMs / 2 + Math.random() * pauseMs,
    )
  }

  /**
   * Answers jobs with a key by what stands in Redis under their Work IDs.
   * @param refused those that were not added, for the key stood for a cancelled job
   */
  async #compare(keyed: readonly Pending[], refused: ReadonlySet<Pending>): Promise<void> {
    const jobs = keyed.map(({ workId }) => this.#queue.jobKey(workId))
    const workIds = keyed.map(({ workId }) => workId)
    const stored = await this.#writes.run(readData, [this.#queue.keys.cancelledData, ...jobs], workIds)
    for (const [index, pending] of keyed.entries()) {
      const { workId, fingerprint, blobKey } = pending
      const data = JSON.parse(stored[index] ?? 'null') as JobData | CancelledJob | null
      if (data === null && refused.has(pending)) {
        // The record of the cancelled job has just expired, so the key is free again.
        this.#backlog.requeue(pending)
      } else if (data === null) {
        // It was done and is forgotten by now.
        this.#backlog.resolve(pending, true)
      } else if ((data.fingerprint ?? fingerprint) === fingerprint) {
        this.#backlog.resolve(pending, 'payload' in data && data.payload.blob?.key === blobKey)
      } else {
        const detail = `The key already stands for the job ${workId}, which was another request.`
        this.#backlog.reject(pending, new Problem('idempotency_key_reused', detail))
      }
    }
  }
}

const translate = (error: unknown): unknown =>
  isRedisFull(error)
    ? new Problem('overloaded', 'Redis is full: no new jobs until finished ones have been collected.', {
        cause: error,
        retryAfterMs: 10_000,
      })
    : error
