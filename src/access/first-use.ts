/**
 * The first join of an instance binds it to a word that the instance made up itself and keeps for root alone. Whoever joins for
 * it later has to show the same word: so the join secret and the id of an instance are not enough to pass for it.
 *
 *   unknown ──first join──▶ bound ──the same word──▶ bound
 *                             └── another word, or none ──▶ refused
 *
 * A reply that got lost does no harm: the instance asks again, here or at another node, with the word that it has.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { RedisClient } from '../redis/connection.ts'
import { Script } from '../redis/script.ts'
import { joinKey } from './keys.ts'

/** Longer than any instance of a fleet is meant to live; each join begins it anew. */
const boundMs = 90 * 24 * 3600 * 1000

/** KEYS: the word of an instance. ARGV: its hash, time to live in ms. Also in a full Redis: workers make room. */
const bind = new Script<string | null>(
  'bindInstance',
  `return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX')`,
  {
    whenFull: true,
  },
)

export class FirstUse {
  readonly #redis: RedisClient
  readonly #unboundMs: number

  /** @param unboundMs how long an instance that shows no word is bound to none: its first token has run out then */
  constructor(redis: RedisClient, unboundMs: number) {
    this.#redis = redis
    this.#unboundMs = unboundMs
  }

  /** Whether it has joined, as far as that is still known. */
  async isKnown(instanceId: string): Promise<boolean> {
    return (await this.#redis.exists(joinKey(instanceId))) === 1
  }

  /**
   * Binds an instance that is unknown.
   * @param nonce its word; '' when it has none
   * @returns `first` when it was unknown, `again` when it showed its word, `refused` when it did not
   */
  async join(instanceId: string, nonce: string): Promise<'first' | 'again' | 'refused'> {
    const key = joinKey(instanceId)
    const hash = createHash('sha256').update(nonce).digest('hex')
    const ttlMs = nonce === '' ? this.#unboundMs : boundMs
    if ((await bind.run(this.#redis, [key], [hash, ttlMs])) === 'OK') return 'first'
    const known = await this.#redis.get(key)
    // It ran out just now.
    if (known === null) return await this.join(instanceId, nonce)
    if (nonce === '' || !isSame(known, hash)) return 'refused'
    await this.#redis.pexpire(key, ttlMs)
    return 'again'
  }
}

const isSame = (one: string, other: string): boolean =>
  one.length === other.length && timingSafeEqual(Buffer.from(one), Buffer.from(other))
