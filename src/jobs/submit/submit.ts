/**
 * Submission: what a request asks for becomes a job on its way into Redis (submit-batcher.ts), at the durability asked
 * for.
 */
import type { JobJson } from 'bullmq'
import type { Notifier } from '../../notifier.ts'
import { type Durability, LocalWrites } from '../../redis/writes/durable-writes.ts'
import { type BullCall, BullRecorder } from '../bullmq/bull-batch.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import type { JobData, StoredContent } from '../job-data.ts'
import { type IdempotencyKey, newWorkId, workIdOfKey } from '../work-id.ts'
import { SubmitBatcher } from './submit-batcher.ts'

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
  /** The API key that put it in; absent: none did. */
  readonly owner?: string
  /** With an Idempotency-Key: what the whole request was, in short. */
  readonly fingerprint?: string
}

export interface SubmitOptions {
  /** `local` for less than what is usual here. */
  readonly durability?: Durability
  /** True once nobody waits for the answer any more. */
  readonly isGone?: () => boolean
}

/** BullMQ's scripts that add a job take the packed fields, the data and the packed options. */
const scriptArguments = 3
/** A replicated job is acknowledged within this time, or refused: a failover takes most of it. */
const ackWithinMs = 5000

const never = (): boolean => false

export const reserveWorkId = (queue: string, idempotencyKey?: IdempotencyKey): string =>
  idempotencyKey === undefined ? newWorkId(queue) : workIdOfKey(queue, idempotencyKey)

export class Submitter {
  readonly #queue: JobQueue
  readonly #usual: SubmitBatcher
  /** Of its own: what is asked for less does not wait for replicas behind others. */
  readonly #local: SubmitBatcher

  constructor(queue: JobQueue, notifier: Notifier, options: { ackWithinMs?: number } = {}) {
    const withinMs = options.ackWithinMs ?? ackWithinMs
    this.#queue = queue
    this.#usual = new SubmitBatcher(queue, notifier, queue.writes, withinMs)
    this.#local =
      queue.writes.reaches === 'local'
        ? this.#usual
        : new SubmitBatcher(queue, notifier, new LocalWrites(queue.redis), withinMs)
  }

  /** What a job has reached when it is answered: what was asked for, but not more than there is. */
  reached(asked?: Durability): Durability {
    return asked === 'local' ? 'local' : this.#queue.writes.reaches
  }

  /**
   * Resolves once the job is kept (with the embedded Redis: in its append-only file, synced; replicated: on a second
   * server). With a fingerprint, a Work ID that exists already, or was cancelled, is the same job: nothing is added.
   * @returns whether it was added
   * @throws Problem idempotency_key_reused, overloaded; NotDurableError; whatever Redis says when it is away
   */
  submit(submission: Submission, options: SubmitOptions = {}): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const line = options.durability === 'local' ? this.#local : this.#usual
      const call = this.#toCall(submission)
      line.add({
        call,
        workId: submission.workId,
        fingerprint: submission.fingerprint,
        blobKey: submission.payload.blob?.key,
        isGone: options.isGone ?? never,
        bytes: sizeOf(call),
        resolve,
        reject,
      })
    })
  }

  /** What BullMQ would send for this job. */
  #toCall(submission: Submission): BullCall {
    const recorder = new BullRecorder(scriptArguments)
    const job = toJobJson(submission, Date.now())
    void this.#queue.backend.addJobToTransaction(recorder as never, job, submission.workId)
    const call = recorder.calls[0] as BullCall
    if (submission.fingerprint !== undefined) return { ...call, keyedWorkId: submission.workId }
    return submission.priority || submission.delayMs ? call : { ...call, type: submission.type }
  }
}

const sizeOf = ({ args }: BullCall): number => args.reduce((sum, argument) => sum + argument.length, 0)

function toJobJson(submission: Submission, timestamp: number): JobJson {
  const data: JobData = {
    payload: submission.payload,
    ...(submission.params && { params: submission.params }),
    ...(submission.timeoutMs !== undefined && { timeoutMs: submission.timeoutMs }),
    ...(submission.owner !== undefined && { owner: submission.owner }),
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
