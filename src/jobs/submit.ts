/**
 * Submission with group commit: jobs that arrive while others are being written go to Redis together, in one pipeline.
 * Every submitter waits for its own job; a group that fails in part fails only those.
 */
import type { JobJson } from 'bullmq'
import { Problem } from '../errors.ts'
import type { Bell } from '../redis/bell.ts'
import { isRedisFull } from '../redis/redis-errors.ts'
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

/** More in one pipeline would hold up everybody else's commands (1,000 take 45 ms). */
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
    try {
      const backend = this.#queue.backend
      const client = await backend.client
      const pipeline = client.pipeline()
      const timestamp = Date.now()
      const replies: { index: number; fingerprintIndex?: number }[] = []
      let commands = 0
      for (const { submission } of group) {
        // On a pipeline this only queues the command; its outcome is read from exec below.
        void backend.addJobToTransaction(pipeline, toJobJson(submission, timestamp), submission.workId)
        if (submission.fingerprint === undefined) {
          replies.push({ index: commands++ })
        } else {
          ;(pipeline as unknown as { hget(key: string, field: string): void }).hget(
            this.#queue.jobKey(submission.workId),
            'data',
          )
          replies.push({ index: commands++, fingerprintIndex: commands++ })
        }
      }
      const outcomes = (await pipeline.exec()) as [Error | null, unknown][]
      let added = false
      group.forEach((pending, position) => {
        const { index, fingerprintIndex } = replies[position] as { index: number; fingerprintIndex?: number }
        const [error] = outcomes[index] ?? [new Error('no reply')]
        if (error !== null) {
          pending.reject(translate(error))
          return
        }
        const stored = fingerprintIndex === undefined ? undefined : outcomes[fingerprintIndex]?.[1]
        const data = typeof stored === 'string' ? (JSON.parse(stored) as JobData) : undefined
        if (data !== undefined && data.fingerprint !== pending.submission.fingerprint) {
          pending.reject(
            new Problem(
              'idempotency_key_reused',
              `The key already stands for the job ${pending.submission.workId}, which was another request.`,
            ),
          )
          return
        }
        added = true
        pending.resolve(data === undefined || data.payload.blob?.key === pending.submission.payload.blob?.key)
      })
      if (added) this.#bell.ring(`jobs:${this.#queue.name}`)
      if (added) this.#bell.ring('backlog')
    } catch (error) {
      for (const pending of group) pending.reject(translate(error))
    }
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
