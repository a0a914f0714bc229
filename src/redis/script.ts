/** A Lua script that runs atomically in Redis, sent once and then called by its hash (ioredis does that). */
import { createHash } from 'node:crypto'
import type { RedisClient } from './connection.ts'
import { runsWhenFull } from './when-full.ts'

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
