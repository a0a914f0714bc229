/**
 * Scripts that make room, or are needed to make it, run in a Redis that is at its memory limit, too: finishing, handing
 * out, acking, cancelling, extending leases, sweeping.
 *
 * Redis refuses a script there at its first write, if that takes memory; once a script has written, it runs to its end.
 * So these begin with a deletion of nothing. That is documented for all versions from 6.2 on, Valkey and Cluster included,
 * where the flag `allow-oom` exists from 7.0 on only and would be a syntax error before.
 */
import type { RedisClient } from './connection.ts'

/** Of BullMQ's scripts, by their names without the version. Those that add work are not among them. */
const ofBullMq = new Set([
  'cleanJobsInSet',
  'extendLock',
  'extendLocks',
  'moveJobFromActiveToWait',
  'moveJobsToWait',
  'moveStalledJobsToWait',
  'moveToActive',
  'moveToDelayed',
  'moveToFinished',
  'pause',
  'releaseLock',
  'removeJob',
  'retryJob',
  'saveStacktrace',
])

/** The same script, to be carried out in a full Redis as well. It must have a key. */
export const runsWhenFull = (lua: string): string => `redis.call('DEL', KEYS[1] .. ':none')\n${lua}`

const prepared = new WeakSet<RedisClient>()

/** From now on BullMQ's scripts of that kind are defined so in this client. Calling twice is safe. */
export function letBullMqFinishWhenFull(client: RedisClient): void {
  if (prepared.has(client)) return
  prepared.add(client)
  const define = client.defineCommand.bind(client)
  client.defineCommand = (name, definition) => {
    const isFreeing = ofBullMq.has(name.replace(/:.*$/, ''))
    define(name, isFreeing ? { ...definition, lua: runsWhenFull(definition.lua) } : definition)
  }
}
