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
import type { Redis } from 'ioredis'
import { keys } from './keys.ts'
import type { Instance } from './providers/provider.ts'

export interface LaunchTicket {
  /** The decisionId of the next launch: unique over all queues, deployments and resets of Redis. */
  readonly id: string
  readonly number: number
  /** What the last launch brought. */
  readonly last: readonly Instance[]
}

/** KEYS: tickets. ARGV: queue, a seed for the case that there is none. Returns seed, number and what the last launch brought. */
const readScript = `
redis.call('HSETNX', KEYS[1], ':seed', ARGV[2])
return redis.call('HMGET', KEYS[1], ':seed', ARGV[1], ARGV[1] .. ':last')`

/** KEYS: tickets. ARGV: queue, number, what it brought. Moves on to the next number, unless somebody has. */
const useUpScript = `
if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] + 1, ARGV[1] .. ':last', ARGV[3])
return 1`

export class LaunchTickets {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** The ticket under which the next launch for the queue goes. */
  async current(queue: string): Promise<LaunchTicket> {
    const seed = randomBytes(4).toString('hex')
    const [held, number, last] = (await this.#redis.eval(readScript, 1, keys.tickets, queue, seed)) as (string | null)[]
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
    await this.#redis.eval(useUpScript, 1, keys.tickets, queue, number, JSON.stringify(launched))
  }
}
