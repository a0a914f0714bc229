/**
 * The leader lease lets one node act for the fleet. Free → held (a new epoch) → renewed on every tick → released, or
 * expired after ttlMs without renewal. The epoch grows each time the lease is taken, so it tells what a late former
 * holder wrote. Everything done under the lease is idempotent too: a lease cannot stop a process that was suspended.
 */
import { randomUUID } from 'node:crypto'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { runsWhenFull } from '../../redis/script.ts'
import { within } from '../../within.ts'
import { keys } from '../redis-keys.ts'
import { redisTimeoutMs } from '../timing.ts'

/** KEYS: lease, epoch. ARGV: holder, ttl in ms. Takes a free lease or renews our own; returns the epoch, or 0 when another holds it. */
const holdScript = runsWhenFull(`
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(redis.call('GET', KEYS[2]))
end
if holder then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('INCR', KEYS[2])`)

/** KEYS: lease. ARGV: holder. Frees the lease when it is ours. */
const releaseScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`

export class LeaderLease {
  readonly holder = randomUUID()
  readonly #redis: RedisClient
  readonly #ttlMs: number

  /** @param ttlMs how long the lease outlives its last renewal */
  constructor(redis: RedisClient, ttlMs: number) {
    this.#redis = redis
    this.#ttlMs = ttlMs
  }

  /**
   * Takes or renews the lease.
   * @returns the epoch, or undefined when another node holds it
   * @throws when Redis does not answer
   */
  async hold(): Promise<number | undefined> {
    const call = this.#redis.eval(holdScript, 2, keys.leader, keys.epoch, this.holder, this.#ttlMs) as Promise<number>
    const epoch = await within(redisTimeoutMs, 'Redis (leader lease)', call)
    return epoch === 0 ? undefined : epoch
  }

  /** Lets another node take over at once. Harmless when the lease is not ours. */
  async release(): Promise<void> {
    await within(redisTimeoutMs, 'Redis (leader lease)', this.#redis.eval(releaseScript, 1, keys.leader, this.holder))
  }
}
