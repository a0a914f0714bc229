/** One job as its owner sees it: state, attempts, times; its log; its result. */
import { Problem } from '../../errors.ts'
import { dueTimeOf } from '../bullmq/bull-layout.ts'
import { type CancelledJob, readCancelled } from '../bullmq/cancel.ts'
import { type JobQueue, jobNotFound } from '../bullmq/job-queue.ts'
import { parseFailure } from '../collect/results.ts'
import type { JobData, StoredContent } from '../job-data.ts'
import { type LostWorker, parseLostWorkers } from '../run/lost-workers.ts'

export const jobStates = ['waiting', 'delayed', 'running', 'succeeded', 'dead', 'cancelled'] as const
export type JobState = (typeof jobStates)[number]

export interface JobView {
  readonly workId: string
  readonly state: JobState
  readonly queue: string
  readonly type: string
  readonly priority: number
  /** How many attempts ended, and how many there may be. */
  readonly attemptsMade: number
  readonly attempts: number
  /** How many workers were lost under it; no attempt was spent on that. */
  readonly lostLeases: number
  /** Those workers, oldest first, when there are any. */
  readonly lostWorkers?: { workerId: string; at: string; reason: LostWorker['reason'] }[]
  readonly createdAt: string
  /** When a delayed job (or its next attempt) is due. */
  readonly dueAt?: string
  /** Start of the latest attempt. */
  readonly startedAt?: string
  readonly finishedAt?: string
  /** The worker of the latest attempt. */
  readonly workerId?: string
  readonly progress?: { readonly fraction: number; readonly note?: string }
  /** Of the latest attempt that failed. */
  readonly error?: { readonly code: string; readonly message: string; readonly stack?: string }
  /** Of a succeeded job: is its result still to be collected? */
  readonly collection?: 'uncollected' | 'leased' | 'acked'
  readonly params?: Readonly<Record<string, unknown>>
}

const iso = (ms: number): string => new Date(ms).toISOString()

/** @throws Problem job_not_found */
export async function viewJob(queue: JobQueue, workId: string): Promise<JobView> {
  const [view] = await viewJobs(queue, [workId])
  if (view !== undefined) return view
  const record = await readCancelled(queue, workId)
  if (record === undefined) throw jobNotFound(workId)
  return viewCancelled(queue, record)
}

/** Views of those jobs that still exist, in the order given. */
export async function viewJobs(queue: JobQueue, workIds: readonly string[]): Promise<JobView[]> {
  if (workIds.length === 0) return []
  const { bull, keys } = queue
  const pipeline = queue.redis.pipeline()
  for (const workId of workIds) {
    pipeline.hgetall(queue.jobKey(workId))
    pipeline.exists(`${queue.jobKey(workId)}:lock`)
    pipeline.zscore(bull.toKey('completed'), workId)
    pipeline.zscore(bull.toKey('delayed'), workId)
    pipeline.zscore(keys.uncollected, workId)
    pipeline.hget(keys.leases, workId)
  }
  const replies = (await pipeline.exec()) ?? []
  const views: JobView[] = []
  for (const [index, workId] of workIds.entries()) {
    const [hash, lock, completed, delayed, uncollected, lease] = replies
      .slice(index * 6, index * 6 + 6)
      .map(([error, value]) => {
        if (error !== null) throw error
        return value
      }) as [Record<string, string>, number, string | null, string | null, string | null, string | null]
    if (hash.name === undefined) continue
    const state = stateOf(hash, lock === 1, completed !== null, delayed !== null)
    const collection = collectionOf(lease, uncollected !== null)
    views.push(toView(queue, workId, hash, state, delayed, state === 'succeeded' ? collection : undefined))
  }
  return views
}

/** What is being sent under no lease of the client's own is acked by that (result-scripts.ts). */
function collectionOf(lease: string | null, isUncollected: boolean): NonNullable<JobView['collection']> {
  if (lease !== null && !lease.startsWith('!')) return 'leased'
  return isUncollected ? 'uncollected' : 'acked'
}

function stateOf(hash: Record<string, string>, locked: boolean, completed: boolean, delayed: boolean): JobState {
  if (hash.finishedOn !== undefined) return completed ? 'succeeded' : 'dead'
  if (locked) return 'running'
  return delayed ? 'delayed' : 'waiting'
}

function toView(
  queue: JobQueue,
  workId: string,
  hash: Record<string, string>,
  state: JobState,
  delayed: string | null,
  collection: JobView['collection'],
): JobView {
  const opts = JSON.parse(hash.opts ?? '{}') as { attempts?: number }
  const data = JSON.parse(hash.data ?? '{}') as JobData
  const lost = parseLostWorkers(hash.lost)
  const stack = (JSON.parse(hash.stacktrace ?? '[]') as string[] | null)?.at(-1)
  const progress = hash.progress === undefined ? undefined : (JSON.parse(hash.progress) as JobView['progress'] | number)
  return {
    workId,
    state,
    queue: queue.name,
    type: hash.name as string,
    priority: Number(hash.priority ?? 0),
    attemptsMade: Number(hash.atm ?? 0),
    attempts: opts.attempts ?? 1,
    lostLeases: lost.length,
    ...(lost.length > 0 && {
      lostWorkers: lost.map(({ workerId, at, reason }) => ({ workerId, at: iso(at), reason })),
    }),
    createdAt: iso(Number(hash.timestamp)),
    ...(delayed !== null && { dueAt: iso(dueTimeOf(Number(delayed))) }),
    ...(hash.processedOn !== undefined && { startedAt: iso(Number(hash.processedOn)) }),
    ...(hash.finishedOn !== undefined && { finishedAt: iso(Number(hash.finishedOn)) }),
    ...(hash.pb !== undefined && { workerId: hash.pb }),
    // The last report may have come too late to count: who has succeeded is all the way.
    ...(typeof progress === 'object' && { progress: state === 'succeeded' ? { ...progress, fraction: 1 } : progress }),
    ...(hash.failedReason !== undefined && {
      error: { ...parseFailure(hash.failedReason), ...(stack !== undefined && { stack }) },
    }),
    ...(collection !== undefined && { collection }),
    ...(data.params !== undefined && { params: data.params }),
  }
}

const viewCancelled = (queue: JobQueue, record: CancelledJob): JobView => ({
  workId: record.workId,
  state: 'cancelled',
  queue: queue.name,
  type: record.type,
  priority: record.priority,
  attemptsMade: record.attemptsMade,
  attempts: record.attempts,
  lostLeases: 0,
  createdAt: iso(record.createdAt),
  ...(record.startedAt !== undefined && { startedAt: iso(record.startedAt) }),
  finishedAt: iso(record.cancelledAt),
})

/**
 * Views of cancelled jobs, in the order given. A record is written before its job is removed: when the node dies
 * between the two, the job goes on, and its record says nothing.
 */
export async function viewCancelledJobs(queue: JobQueue, workIds: readonly string[]): Promise<JobView[]> {
  if (workIds.length === 0) return []
  const pipeline = queue.redis.pipeline()
  for (const workId of workIds) pipeline.exists(queue.jobKey(workId))
  const [texts, replies] = await Promise.all([queue.redis.hmget(queue.keys.cancelledData, ...workIds), pipeline.exec()])
  const views: JobView[] = []
  for (const [index, text] of texts.entries()) {
    const [error, exists] = replies?.[index] ?? [null, 0]
    if (error !== null) throw error
    if (text !== null && exists === 0) views.push(viewCancelled(queue, JSON.parse(text) as CancelledJob))
  }
  return views
}

/**
 * The value of a job that succeeded, or why it is dead.
 * @throws Problem job_not_found, result_not_ready
 */
export async function readResult(
  queue: JobQueue,
  workId: string,
): Promise<{ value: StoredContent } | { failure: { code: string; message: string } }> {
  const [finishedOn, returnvalue, failedReason, name] = await queue.redis.hmget(
    queue.jobKey(workId),
    'finishedOn',
    'returnvalue',
    'failedReason',
    'name',
  )
  if (!name) {
    if ((await readCancelled(queue, workId)) === undefined) throw jobNotFound(workId)
    return { failure: { code: 'cancelled', message: 'the job was cancelled' } }
  }
  if (!finishedOn)
    throw new Problem('result_not_ready', `The job ${workId} has not finished yet.`, { retryAfterMs: 1000 })
  if (returnvalue) return { value: JSON.parse(returnvalue) as StoredContent }
  return { failure: parseFailure(failedReason ?? 'failed') }
}

/** Lines of a job's log from `start`, oldest first, and how many there are. */
export async function readLogs(
  queue: JobQueue,
  workId: string,
  start: number,
  limit: number,
): Promise<{ lines: string[]; count: number }> {
  const { logs, count } = await queue.backend.getJobLogs(workId, start, start + limit - 1, true)
  if (count === 0) await viewJob(queue, workId)
  return { lines: logs, count }
}

/** What was submitted; undefined when the job is gone, or was cancelled. */
export async function readData(queue: JobQueue, workId: string): Promise<JobData | undefined> {
  const text = await queue.redis.hget(queue.jobKey(workId), 'data')
  return text === null ? undefined : (JSON.parse(text) as JobData)
}
