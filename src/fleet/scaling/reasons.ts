/** The reasons that a decision or an action can have: one name each, the same in log, journal, metrics and API. */
export const reasons = {
  'no-work': 'Nothing waits and nothing runs',
  paused: 'The queue is paused: only the floor is kept',
  'target-wait': 'Enough workers to finish the backlog within the target wait',
  'boot-time': 'A new worker would be ready too late to shorten the wait',
  'jobs-per-worker': 'One worker for every N jobs',
  fixed: 'A fixed number of workers',
  floor: 'Never fewer than minWorkers',
  ceiling: 'Never more than maxWorkers',
  'launch-backoff': 'The last launches brought up no lasting worker: the next one waits',
  interrupted: 'Its host is being taken away: replaced at the notice, ended when it outlives its time',
  'lost-worker': 'The instance is there, but its worker has been silent for too long',
  'boot-timeout': 'No worker has registered from the instance in time',
  drained: 'The worker has drained and holds no job',
  unhealthy: 'The worker is alive but takes no job, while jobs wait and others work',
  idle: 'The worker had no job for the idle timeout and is not needed',
  'unknown-pool': 'No queue of this name is declared any more',
  booted: 'An instance came up: how long each stage took',
  leftover: 'Something that belongs to no instance any more was removed',
  manual: 'Somebody asked for it',
} as const

export type ReasonName = keyof typeof reasons
