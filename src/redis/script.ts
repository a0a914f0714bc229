/** A Lua script that runs atomically in Redis, sent once and then called by its hash (ioredis does that). */
import type { Redis } from 'ioredis'

type Argument = string | number | Buffer
type Call = (keyCount: number, ...args: Argument[]) => Promise<unknown>

export class Script<Reply> {
  readonly #name: string
  readonly #lua: string

  /** @param name unique among all scripts; shows up in no key */
  constructor(name: string, lua: string) {
    this.#name = `muster_${name}`
    this.#lua = lua
  }

  async run(redis: Redis, keys: readonly string[], args: readonly Argument[] = []): Promise<Reply> {
    const commands = redis as unknown as Record<string, Call | undefined>
    if (commands[this.#name] === undefined) redis.defineCommand(this.#name, { lua: this.#lua })
    return (await (commands[this.#name] as Call).call(redis, keys.length, ...keys, ...args)) as Reply
  }
}
