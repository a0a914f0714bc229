/**
 * Submission with group commit: jobs that arrive while others are being written go to Redis together, in one call for
 * each of BullMQ's kinds of jobs. Every submitter waits for its own job.
 */
import type { JobJson } from 'bullmq'
import { Problem } from '../errors.ts'
import type { Bell } from '../redis/bell.ts'
import { isRedisFull } from '../redis/redis-errors.ts'
import { type BullCall, BullRecorder, runBullBatch } from './bull-batch.ts'
import type { JobData, StoredContent } from './job-data.ts'
import type { JobQueue } from './job-queue.ts'
import { newWorkId, workIdOfKey } from './work-id.ts'

export interface Submission {
  /** From `reserveWorkId`, so that a large payload could be stored under it before. */
  readonly workId: string
  readonly type: string
  readonly payload: StoredContent
  readonly params?: Readonly<Record<string, unknown>>
  /** 0 is first, then 1, 2, … up to 2,097,151; equal ones in order of arrival. */
  readonly priority?: number
  readonly delayMs?: number
  readonly attempts: number
  readonly timeoutMs?: number
  /** With an Idempotency-Key: what the whole request was, in short. */
  readonly fingerprint?: string
}

/** BullMQ's scripts that add a job take the packed fields, the data and the packed options. */
const scriptArguments = 3
/** More in one call would hold up everybody else's commands (1,000 take 45 ms). */
const maxGroup = 250
/** A second group is built and sent while Redis works on the first. */
const maxGroupsInFlight = 2

interface Pending {
  readonly submission: Submission
  readonly resolve: (added: boolean) => void
  readonly reject: (error: unknown) => void
}

export const reserveWorkId = (queue: string, idempotencyKey?: string): string =>
  idempotencyKey === undefined ? newWorkId(queue) : workIdOfKey(queue, idempotencyKey)

export class Submitter {
  readonly #queue: JobQueue
  readonly #bell: Bell
  readonly #pending: Pending[] = []
  #inFlight = 0

  constructor(queue: JobQueue, bell: Bell) {
    this.#queue = queue
    this.#bell = bell
  }

  /**
   * Resolves once the job is in Redis (with the embedded Redis: in its append-only file, synced). With a fingerprint, a
   * Work ID that exists already is the same job: nothing is added.
   * @returns whether it was added
   * @throws Problem idempotency_key_reused, overloaded; whatever Redis says when it is away
   */
  submit(submission: Submission): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ submission, resolve, reject })
      if (this.#pending.length === 1) setImmediate(() => this.#flush())
    })
  }

  #flush(): void {
    while (this.#pending.length > 0 && this.#inFlight < maxGroupsInFlight) {
      const group = this.#pending.splice(0, maxGroup)
      this.#inFlight += 1
      void this.#commit(group).finally(() => {
        this.#inFlight -= 1
        this.#flush()
      })
    }
  }

  async #commit(group: readonly Pending[]): Promise<void> {
    const byCommand = this.#prepare(group)
    const outcomes = await Promise.allSettled([...byCommand.values()].map(part => this.#add(part)))
    if (!outcomes.some(({ status, value }: { status: string; value?: boolean }) => status === 'fulfilled' && value))
      return
    this.#bell.ring(`jobs:${this.#queue.name}`)
    this.#bell.ring('backlog')
  }

  /** What BullMQ would send for each job, by its script: there is one for plain jobs, for delayed and for prioritised ones. */
  #prepare(group: readonly Pending[]): Map<string, { pending: Pending; call: BullCall }[]> {
    const recorder = new BullRecorder(scriptArguments)
    const timestamp = Date.now()
    const byCommand = new Map<string, { pending: Pending; call: BullCall }[]>()
    for (const [index, pending] of group.entries()) {
      const { submission } = pending
      void this.#queue.backend.addJobToTransaction(
        recorder as never,
        toJobJson(submission, timestamp),
        submission.workId,
      )
      const call = recorder.calls[index] as BullCall
      const part = byCommand.get(call.command)
      if (part === undefined) byCommand.set(call.command, [{ pending, call }])
      else part.push({ pending, call })
    }
    return byCommand
  }

  /** @returns whether anything was added; all of it has been answered then */
  async #add(part: readonly { pending: Pending; call: BullCall }[]): Promise<boolean> {
    try {
      await runBullBatch(
        this.#queue.redis,
        part.map(({ call }) => call),
      )
      await Promise.all(part.map(({ pending }) => this.#answer(pending)))
      return true
    } catch (error) {
      for (const { pending } of part) pending.reject(translate(error))
      return false
    }
  }

  /** A job without a key is new; with one, it may have been there, from the same request or from another. */
  async #answer({ submission, resolve, reject }: Pending): Promise<void> {
    if (submission.fingerprint === undefined) return resolve(true)
    const stored = await this.#queue.redis.hget(this.#queue.jobKey(submission.workId), 'data')
    const data = stored === null ? undefined : (JSON.parse(stored) as JobData)
    if (data === undefined || data.fingerprint === submission.fingerprint)
      return resolve(data === undefined || data.payload.blob?.key === submission.payload.blob?.key)
    const detail = `The key already stands for the job ${submission.workId}, which was another request.`
    return reject(new Problem('idempotency_key_reused', detail))
  }
}

function toJobJson(submission: Submission, timestamp: number): JobJson {
  const data: JobData = {
    payload: submission.payload,
    ...(submission.params && { params: submission.params }),
    ...(submission.timeoutMs !== undefined && { timeoutMs: submission.timeoutMs }),
    ...(submission.fingerprint !== undefined && { fingerprint: submission.fingerprint }),
  }
  const opts = {
    attempts: submission.attempts,
    ...(submission.delayMs && { delay: submission.delayMs }),
    ...(submission.priority && { priority: submission.priority }),
  }
  return {
    id: submission.workId,
    name: submission.type,
    data: JSON.stringify(data),
    opts,
    timestamp,
  } as unknown as JobJson
}

const translate = (error: unknown): unknown =>
  isRedisFull(error)
    ? new Problem('overloaded', 'Redis is full: no new jobs until finished ones have been collected.', {
        cause: error,
        retryAfterMs: 10_000,
      })
    : error
