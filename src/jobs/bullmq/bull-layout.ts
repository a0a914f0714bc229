/**
 * What is known here of how BullMQ lays its data out in Redis. All of it is held against jobs that BullMQ's public API
 * makes (test/jobs/bull-layout.test.ts), so that an upgrade that moves something fails there, in words.
 */

/** BullMQ's lists behind the prefix of a queue. */
export const bullKeys = {
  /** list; the next one is the last */
  wait: 'wait',
  /** zset, score = priority × priorityUnit + a counter */
  prioritized: 'prioritized',
  /** zset, score = due time in ms × delayedUnit + a counter */
  delayed: 'delayed',
  active: 'active',
  completed: 'completed',
  failed: 'failed',
  /** set: jobs whose lease was not renewed since the last look */
  stalled: 'stalled',
  meta: 'meta',
} as const

export const priorityUnit = 2 ** 32
export const delayedUnit = 4096

/** Fields in the hash of a job. */
export const bullFields = {
  type: 'name',
  priority: 'priority',
  /** Starts, attempts that ended, start of the latest one (gone after a replay), worker of the latest one. */
  starts: 'ats',
  attempts: 'atm',
  startedAt: 'processedOn',
  worker: 'pb',
} as const

/** Behind the key of a job: the token of its lease, with the time to live of the lease. */
export const lockSuffix = ':lock'

export const dueTimeOf = (score: number): number => Math.floor(score / delayedUnit)
