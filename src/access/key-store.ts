/** API keys in Redis: made, listed, rotated, revoked. A change is announced, so that all nodes know it at once. */
import type { RedisClient } from '../redis/connect/connection.ts'
import { Script } from '../redis/script.ts'
import type { DurableWrites } from '../redis/writes/durable-writes.ts'
import {
  fromJson,
  hashOf,
  type KeyParts,
  type KeyRecord,
  type KeyView,
  keyNamePattern,
  keyText,
  newKey,
  toJson,
  viewOf,
} from './api-key.ts'
import { keys } from './redis-keys.ts'
import type { Role } from './roles.ts'

export interface NewKey {
  readonly name: string
  readonly roles: readonly Role[]
  /** Left out: all queues. */
  readonly queues?: readonly string[]
  /** From now; left out: it does not expire. */
  readonly expiresInMs?: number
}

/** A key with its text, which is shown this once. */
export interface IssuedKey extends KeyView {
  readonly key: string
}

export interface KeyStoreOptions {
  readonly redis: RedisClient
  /** Tells all nodes that keys changed. */
  readonly announce: () => void
  /** As jobs are kept: a key that was revoked must stay so. */
  readonly writes: DurableWrites
  readonly clock?: () => number
}

/**
 * KEYS: keys. ARGV: id, the record as it was, the new one. Returns whether it was still so. Also in a full Redis: it
 * ends a secret.
 */
const replaceScript = new Script<number>(
  'replaceKey',
  `
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1`,
  { whenFull: true },
)

const tries = 5

export class KeyStore {
  readonly #options: KeyStoreOptions
  readonly #clock: () => number

  constructor(options: KeyStoreOptions) {
    this.#options = options
    this.#clock = options.clock ?? Date.now
  }

  async create({ name, roles, queues, expiresInMs }: NewKey): Promise<IssuedKey> {
    if (!keyNamePattern.test(name)) throw new TypeError('The name of a key is one line of visible text')
    if (queues?.length === 0) throw new TypeError('A key is bound to some queues, or to none by leaving them out')
    const parts = newKey()
    const now = this.#clock()
    const record: KeyRecord = {
      id: parts.id,
      name,
      roles: [...new Set(roles)],
      ...(queues !== undefined && { queues: [...new Set(queues)] }),
      createdAt: now,
      ...(expiresInMs !== undefined && { expiresAt: now + expiresInMs }),
      hash: hashOf(parts.secret),
    }
    await this.#write(redis => redis.hset(keys.apiKeys, parts.id, toJson(record)))
    return issued(record, parts, now)
  }

  /** Oldest first; expired ones, too: they are kept until they are revoked. */
  async list(): Promise<KeyView[]> {
    const now = this.#clock()
    const all = await this.#options.redis.hgetall(keys.apiKeys)
    return Object.entries(all)
      .flatMap(([id, json]) => fromJson(id, json) ?? [])
      .map(record => viewOf(record, now))
      .sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1))
  }

  /**
   * Gives a key a new secret. A secret before the one that is replaced ends at once.
   * @param graceMs how long the old secret stays good
   * @returns undefined when there is no such key
   */
  async rotate(id: string, graceMs: number): Promise<IssuedKey | undefined> {
    const { redis } = this.#options
    for (let tried = 1; tried <= tries; tried += 1) {
      const before = await redis.hget(keys.apiKeys, id)
      const record = before === null ? undefined : fromJson(id, before)
      if (before === null || record === undefined) return undefined
      const parts = newKey(id)
      const now = this.#clock()
      const { previous: _, ...rest } = record
      const rotated: KeyRecord = {
        ...rest,
        rotatedAt: now,
        hash: hashOf(parts.secret),
        ...(graceMs > 0 && { previous: { hash: record.hash, until: now + graceMs } }),
      }
      const done = await this.#write(() => replaceScript.run(redis, [keys.apiKeys], [id, before, toJson(rotated)]))
      if (done === 1) return issued(rotated, parts, now)
    }
    throw new Error(`The key ${id} is being changed by others again and again`)
  }

  /** @returns false when there is no such key */
  async revoke(id: string): Promise<boolean> {
    return (await this.#write(redis => redis.hdel(keys.apiKeys, id))) === 1
  }

  async #write<T>(write: (redis: RedisClient) => Promise<T>): Promise<T> {
    const { redis, writes, announce } = this.#options
    try {
      return await writes.confirm(keys.apiKeys, () => write(redis))
    } finally {
      // Also after a failure: the write may be there all the same.
      announce()
    }
  }
}

const issued = (record: KeyRecord, parts: KeyParts, now: number): IssuedKey => ({
  ...viewOf(record, now),
  key: keyText(parts),
})
