/** The Redis keys of the fleet. One hash tag, so that a script may touch several of them on a Redis Cluster. */
const prefix = '{muster}:'

export const keys = {
  /** Sorted set: worker id by when it was last heard of. */
  workers: `${prefix}workers`,
  /** Hash: what one worker said of itself, and whether it is to drain. */
  worker: (workerId: string): string => `${prefix}worker:${workerId}`,
  /** Sorted set: types that workers registered, by when they last did. */
  types: `${prefix}types-seen`,
  /** Sorted sets: what the workers with this API key made, by when it was last heard of: its ids of workers, its types. */
  workersOfKey: (keyId: string): string => `${prefix}workers-of:${keyId}`,
  typesOfKey: (keyId: string): string => `${prefix}types-of:${keyId}`,
  /** Hash: by queue, the types that the workers on instances of its pool declared last (JSON). */
  launchedTypes: `${prefix}fleet:launched-types`,
  /** String: the node that holds the lease of the autoscaler. */
  leader: `${prefix}fleet:leader`,
  /** Counter: how often that lease changed hands. */
  epoch: `${prefix}fleet:epoch`,
  /** Hash: by queue, the number of its next launch and what the last one brought. */
  tickets: `${prefix}fleet:tickets`,
  /** String with a time to live: the worker of this instance may not claim, whenever it registers. */
  cordon: (instanceId: string): string => `${prefix}cordon:${instanceId}`,
  /** Stream: the journal of decisions. */
  decisions: `${prefix}fleet:journal`,
  /** Hash: by queue, the latest decision and its time. */
  latest: `${prefix}fleet:latest-decisions`,
} as const
