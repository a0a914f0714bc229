/**
 * What an instance shows beside the join secret, which every instance of the fleet can read: that it calls from its own
 * address, that it is the one that joined first, and (where the settings ask for it) the identity document that AWS
 * signs for it.
 */

import { createHash, timingSafeEqual } from 'node:crypto'
import type { Certificate } from 'pkijs'
import type { RedisClient } from '../redis/connect/connection.ts'
import { Script } from '../redis/script.ts'
import { verifyIdentityDocument } from './identity-document.ts'
import { joinKey } from './redis-keys.ts'

export interface JoinProofOptions {
  readonly firstUse: FirstUse
  readonly proofs: 'none' | 'address' | 'document' | 'both'
  /** Those of AWS for the region of the fleet. */
  readonly certificates: readonly Certificate[]
  readonly region: string
  /** An instance that joins for the first time was launched no longer ago than this. */
  readonly youngMs: number
  readonly clock?: () => number
}

/** What its provider knows of an instance. */
export interface JoiningInstance {
  readonly id: string
  /** Where its calls come from; empty while the provider does not show it yet, absent where it has nothing to tell. */
  readonly addresses?: readonly string[]
  readonly accountId?: string
}

export interface JoinCall {
  readonly ip: string
  readonly nonce: string
  readonly document: string
}

export class JoinProofs {
  readonly #options: JoinProofOptions

  constructor(options: JoinProofOptions) {
    this.#options = options
  }

  /**
   * @returns why it is refused; undefined when it may join. `hidden`: its provider does not show yet what it takes to
   * tell
   */
  async check(instance: JoiningInstance, call: JoinCall): Promise<string | 'hidden' | undefined> {
    const { firstUse, proofs, youngMs, clock = Date.now } = this.#options
    if (proofs === 'address' || proofs === 'both') {
      const { addresses } = instance
      if (addresses?.length === 0) return 'hidden'
      if (addresses !== undefined && !addresses.includes(plainAddress(call.ip)))
        return `it calls from ${plainAddress(call.ip)}, which is no address of this instance`
    }
    const document = await this.#checkDocument(instance, call.document)
    if (typeof document === 'string') return document
    // Before it is bound: an old document must not keep its owner out.
    const isOld = document !== undefined && clock() - document.pendingAt > youngMs
    if (isOld && !(await firstUse.isKnown(instance.id)))
      return `its identity document is of ${new Date(document.pendingAt).toISOString()}: too old for a first join`
    if ((await firstUse.join(instance.id, call.nonce)) === 'refused')
      return 'the instance has joined before, and the word that it showed then is not shown'
    return undefined
  }

  async #checkDocument(instance: JoiningInstance, signed: string): Promise<{ pendingAt: number } | string | undefined> {
    const { proofs, certificates, region } = this.#options
    if (proofs !== 'document' && proofs !== 'both') return undefined
    const document = await verifyIdentityDocument(signed, certificates)
    if (document === undefined) return 'it shows no identity document that AWS has signed for this region'
    if (document.instanceId !== instance.id) return `its identity document is of ${document.instanceId}`
    if (document.region !== region) return `its identity document is of the region ${document.region}`
    if (instance.accountId !== undefined && document.accountId !== instance.accountId)
      return `its identity document is of the account ${document.accountId}`
    return document
  }
}

/** A socket for both families tells IPv4 in the words of IPv6. */
const plainAddress = (ip: string): string => ip.replace(/^::ffff:/i, '')

/**
 * The first join of an instance binds it to a word that the instance made up itself and keeps for root alone. Whoever
 * joins for it later has to show the same word: so the join secret and the id of an instance are not enough to pass for
 * it.
 *
 *   unknown ──first join──▶ bound ──the same word──▶ bound
 *                             └── another word, or none ──▶ refused
 *
 * A reply that got lost does no harm: the instance asks again, here or at another node, with the word that it has.
 */

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
