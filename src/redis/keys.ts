/**
 * Names of keys. What stands in braces is hashed by a Redis Cluster: all keys of one queue live together, so that one
 * script or pipeline may touch them.
 */

/** The BullMQ prefix of a queue: `{muster:<queue>}`. */
export const prefixOf = (queue: string): string => `{muster:${queue}}`

/** A key of ours that belongs to one queue: `{muster:<queue>}:<name>`. */
export const queueKey = (queue: string, name: string): string => `${prefixOf(queue)}:${name}`

/** A key of ours that belongs to no queue: `{muster}:<name>`. */
export const globalKey = (name: string): string => `{muster}:${name}`

/** What of a key a Redis Cluster hashes, braces included; '' when it has no hash tag. */
export const hashTagOf = (key: string): string => key.slice(0, key.indexOf('}') + 1)
