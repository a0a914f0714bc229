/**
 * What a node knows of keys, signing secrets and ended instances: a copy of what stands in Redis, so that a request is
 * judged without a call.
 *
 *   unread ──read()──▶ fresh ──the notifier, or too old──▶ stale ──next request reads──▶ fresh
 *                                                        └── Redis is away: what was known goes on ──▶ (a pause) stale
 *
 * While Redis is away nobody can do anything here anyway, so what was known may stand meanwhile.
 */

import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { RedisClient } from '../redis/connect/connection.ts'
import type { DurableWrites } from '../redis/writes/durable-writes.ts'
import { fromJson, type KeyRecord } from './api-key.ts'
import { keys } from './redis-keys.ts'
import { ensureSigningSecret, parseSigningSecrets, type SigningSecret } from './worker-token.ts'

interface Known {
  readonly apiKeys: ReadonlyMap<string, KeyRecord>
  /** Whether there is a key, or was one since the node was started. */
  readonly hasKeys: boolean
  readonly signing: readonly SigningSecret[]
  readonly ended: ReadonlySet<string>
  /** Absent until it was read. */
  readonly deployment?: Buffer
}

/** A notification can get lost: what is known is read anew behind requests when it is this old… */
const refreshAfterMs = 1000
/** …and nothing that is older than this decides. */
const goodForMs = 3000
/** After a read that failed. */
const pauseMs = 1000
/** What is unknown is looked for in Redis, but not more often than this, however many come with it. */
const lookAgainMs = 50

export class AccessRecords {
  readonly #redis: RedisClient
  readonly #writes: DurableWrites
  readonly #clock: () => number
  #known: Known = { apiKeys: new Map(), hasKeys: false, signing: [], ended: new Set() }
  #isRead = false
  /** performance.now() */
  #readAtMs = Number.NEGATIVE_INFINITY
  #refreshAtMs = Number.NEGATIVE_INFINITY
  #waitAtMs = Number.NEGATIVE_INFINITY
  #reading: Promise<void> | undefined
  #looking: Promise<void> | undefined
  /** Counts what made a read that is under way too old. */
  #changes = 0

  /** @param clock ms since the epoch */
  constructor(redis: RedisClient, writes: DurableWrites, clock: () => number = Date.now) {
    this.#redis = redis
    this.#writes = writes
    this.#clock = clock
  }

  get known(): Known {
    return this.#known
  }

  /** Something changed: the next request reads. */
  expire(): void {
    this.#changes += 1
    this.#refreshAtMs = Number.NEGATIVE_INFINITY
    this.#waitAtMs = Number.NEGATIVE_INFINITY
  }

  /**
   * @returns undefined when what is known is good, else a promise of that
   * @throws (by the promise) what Redis says, as long as nothing was ever read
   */
  freshen(): Promise<void> | undefined {
    const now = performance.now()
    if (now < this.#refreshAtMs) return undefined
    const reading = this.read()
    reading.catch(() => undefined)
    return now < this.#waitAtMs ? undefined : reading
  }

  /** Something is not known here: it may be new. Resolves when it was looked for, all who wait for that together. */
  lookAgain(): Promise<void> {
    this.#looking ??= delay(Math.max(0, this.#readAtMs + lookAgainMs - performance.now()))
      .then(() => this.read())
      .finally(() => {
        this.#looking = undefined
      })
    return this.#looking
  }

  read(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  /** An instance has ended: known here at once. */
  addEnded(instanceId: string): void {
    this.#known = { ...this.#known, ended: new Set([...this.#known.ended, instanceId]) }
  }

  async #read(): Promise<void> {
    const changes = this.#changes
    try {
      const [apiKeys, signing, ended, deployment] = await Promise.all([
        this.#redis.hgetall(keys.apiKeys),
        this.#redis.get(keys.signing),
        this.#redis.zrange(keys.ended, '0', '-1'),
        readDeploymentSecret(this.#redis, this.#writes),
      ])
      // Redis lost what it had: workers join anew.
      if (signing === null) await ensureSigningSecret(this.#redis)
      const secrets = signing ?? (await this.#redis.get(keys.signing))
      const records = Object.entries(apiKeys).flatMap(([id, json]) => fromJson(id, json) ?? [])
      this.#known = {
        apiKeys: new Map(records.map(record => [record.id, record])),
        // One that cannot be read is a key all the same. And where there was one there is always one: no loss of data,
        // and no failover to a copy that lags behind, opens a node to everybody.
        hasKeys: this.#known.hasKeys || Object.keys(apiKeys).length > 0,
        signing: parseSigningSecrets(secrets).filter(({ goodUntil }) => (goodUntil ?? this.#clock()) >= this.#clock()),
        ended: new Set(ended),
        deployment,
      }
      this.#isRead = true
      this.#readAtMs = performance.now()
      if (changes !== this.#changes) return
      this.#refreshAtMs = this.#readAtMs + refreshAfterMs
      this.#waitAtMs = this.#readAtMs + goodForMs
    } catch (error) {
      if (!this.#isRead) throw error
      this.#refreshAtMs = performance.now() + pauseMs
      this.#waitAtMs = this.#refreshAtMs
    }
  }
}

/**
 * Reads the secret of the deployment. The first node makes it; all nodes share it.
 * @throws what Redis says
 */
export async function readDeploymentSecret(redis: RedisClient, writes: DurableWrites): Promise<Buffer> {
  const known = await redis.get(keys.deployment)
  if (known !== null) return Buffer.from(known, 'hex')
  const fresh = randomBytes(32).toString('hex')
  // Without a second copy at hand it is in the primary, as all else then: nothing is acknowledged meanwhile.
  const refusal: unknown = await writes
    .confirm(keys.deployment, () => redis.set(keys.deployment, fresh, 'NX'))
    .then(() => undefined)
    .catch((error: unknown) => error)
  const kept = await redis.get(keys.deployment)
  if (kept === null) throw new Error(`Redis does not keep ${keys.deployment}`, { cause: refusal })
  return Buffer.from(kept, 'hex')
}
