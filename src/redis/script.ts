/** A Lua script that runs atomically in Redis, sent once and then called by its hash (ioredis does that). */
import { createHash } from 'node:crypto'
import type { RedisClient } from './connect/connection.ts'

export type ScriptArgument = string | number | Buffer
type Call = (keyCount: number, ...args: ScriptArgument[]) => Promise<unknown>

export class Script<Reply> {
  readonly lua: string
  readonly #name: string
  #sha: string | undefined

  /**
   * @param name unique among all scripts; shows up in no key
   * @param whenFull it runs in a Redis that is at its memory limit, too
   */
  constructor(name: string, lua: string, { whenFull = false }: { readonly whenFull?: boolean } = {}) {
    this.#name = `muster_${name}`
    this.lua = whenFull ? runsWhenFull(lua) : lua
  }

  /** What EVALSHA calls it by. */
  get sha(): string {
    this.#sha ??= createHash('sha1').update(this.lua).digest('hex')
    return this.#sha
  }

  /** Runs it; sent once more when the server does not have it, so never as part of a pipeline that ends in a WAIT. */
  async run(redis: RedisClient, keys: readonly string[], args: readonly ScriptArgument[] = []): Promise<Reply> {
    const commands = redis as unknown as Record<string, Call | undefined>
    if (commands[this.#name] === undefined) redis.defineCommand(this.#name, { lua: this.lua })
    return (await (commands[this.#name] as Call).call(redis, keys.length, ...keys, ...args)) as Reply
  }
}

/**
 * Scripts that make room, or are needed to make it, run in a Redis that is at its memory limit, too: finishing, handing
 * out, acking, cancelling, extending leases, sweeping.
 *
 * Redis refuses a script there at its first write, if that takes memory; once a script has written, it runs to its end.
 * So these begin with a deletion of nothing. That is documented for all versions from 6.2 on, Valkey and Cluster
 * included, where the flag `allow-oom` exists from 7.0 on only and would be a syntax error before.
 */

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
