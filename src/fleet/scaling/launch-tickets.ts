/**
 * Numbers the launches of each queue, so that the same need launches once however many nodes see it and however often a
 * launch is tried. A node reads the ticket before it lists instances and launches under it; the provider launches a
 * ticket once. Only when the outcome of a launch is known is the ticket used up, by a compare and set:
 *
 *   two nodes that read the same ticket send the same launch twice, which launches once;
 *   a node that reads the next ticket lists after the earlier launch was over, and sees what it brought.
 *
 * So nothing hangs on the lease of the autoscaler here. What the last launch brought is kept beside the ticket, because
 * another node's list may not show it yet (EC2 is eventually consistent).
 */
import { randomBytes } from 'node:crypto'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import { type DurableWrites, LocalWrites } from '../../redis/writes/durable-writes.ts'
import type { Instance } from '../providers/provider.ts'
import { keys } from '../redis-keys.ts'

export interface LaunchTicket {
  /** The decisionId of the next launch: unique over all queues, deployments and resets of Redis. */
  readonly id: string
  readonly number: number
  /** What the last launch brought. */
  readonly last: readonly Instance[]
}

/** KEYS: tickets. ARGV: queue, a seed for the case that there is none. Returns seed, number, what the last launch brought, and whether the seed is new. */
const read = new Script<[seed: string, number: string | null, last: string | null, isNew: number]>(
  'read_ticket',
  `local isNew = redis.call('HSETNX', KEYS[1], ':seed', ARGV[2])
local ticket = redis.call('HMGET', KEYS[1], ':seed', ARGV[1], ARGV[1] .. ':last')
return { ticket[1], ticket[2], ticket[3], isNew }`,
  { whenFull: true },
)

/** KEYS: tickets. ARGV: queue, number, what it brought. Moves on to the next number, unless somebody has. */
const useUp = new Script<number>(
  'use_up_ticket',
  `if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] + 1, ARGV[1] .. ':last', ARGV[3])
return 1`,
  { whenFull: true },
)

export class LaunchTickets {
  readonly #redis: RedisClient
  readonly #writes: DurableWrites

  /** @param writes a ticket that is used up must not come back, nor the seed be another one later */
  constructor(redis: RedisClient, writes: DurableWrites = new LocalWrites(redis)) {
    this.#redis = redis
    this.#writes = writes
  }

  /** The ticket under which the next launch for the queue goes. */
  async current(queue: string): Promise<LaunchTicket> {
    const seed = randomBytes(4).toString('hex')
    const [held, number, last, isNew] = await read.run(this.#redis, [keys.tickets], [queue, seed])
    // A seed that nobody has launched under yet is waited for, as all that was written before it.
    if (isNew === 1) await this.#writes.run(read, [keys.tickets], [queue, seed])
    return {
      id: `${queue}-${held}-${number ?? 0}`,
      number: Number(number ?? 0),
      last: last ? (JSON.parse(last) as Instance[]) : [],
    }
  }

  /**
   * The outcome of this launch is known: the next one is another. Calling twice is safe.
   * @param launched what it brought; empty when it was refused
   */
  async useUp(queue: string, { number }: LaunchTicket, launched: readonly Instance[]): Promise<void> {
    await this.#writes.run(useUp, [keys.tickets], [queue, number, JSON.stringify(launched)])
  }
}
