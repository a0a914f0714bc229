/** The latest decision about each pool, as all nodes see it: also one that changed nothing, which the journal leaves out. */
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import type { BootMedians } from '../measure/boot-log.ts'
import { keys } from '../redis-keys.ts'
import type { Decision, PoolSnapshot } from '../scaling/snapshot.ts'
import { packInputs, type RecordedInputs, unpackInputs } from './journal.ts'

export interface LatestDecision {
  /** In ms since the epoch. */
  readonly at: number
  readonly epoch: number
  readonly decision: Decision
  readonly inputs: PoolSnapshot
  /** How long the stages of a boot take; absent until one was seen. */
  readonly boot?: BootMedians
}

type Recorded = Omit<LatestDecision, 'inputs'> & { readonly inputs: RecordedInputs }

/** KEYS: decisions by queue. ARGV: queue, decision. The fleet goes on when Redis is full: workers make room. */
const write = new Script<number>('write_latest_decision', `return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])`, {
  whenFull: true,
})

export class LatestDecisions {
  readonly #redis: RedisClient

  constructor(redis: RedisClient) {
    this.#redis = redis
  }

  async write(queue: string, latest: LatestDecision): Promise<void> {
    const recorded: Recorded = { ...latest, inputs: packInputs(latest.inputs) }
    await write.run(this.#redis, [keys.latest], [queue, JSON.stringify(recorded)])
  }

  /** By queue; one about which nothing was decided yet is absent. */
  async read(): Promise<Map<string, LatestDecision>> {
    const texts = await this.#redis.hgetall(keys.latest)
    return new Map(
      Object.entries(texts).map(([queue, text]) => {
        const recorded = JSON.parse(text) as Recorded
        return [queue, { ...recorded, inputs: unpackInputs(recorded.inputs) }]
      }),
    )
  }
}

/**
 * Which decisions the journal keeps: those that do something, and those whose reason is news. Short jobs that come one by one make
 * "no work" and "one job" alternate each second; such flips change nothing, and a reader would find nothing else.
 */

/** A reason that was journaled less than this ago is no news. */
export const newsAfterMs = 60_000

export class ReasonNews {
  /** By queue: the reason that was journaled last, and when each reason was. */
  readonly #pools = new Map<string, { lastTold: string; readonly toldAt: Map<string, number> }>()

  /**
   * Takes note of a decision.
   * @returns whether it is to be journaled
   */
  observe(
    queue: string,
    decision: { readonly reason: string; readonly actions: readonly unknown[] },
    now: number,
  ): boolean {
    const { reason, actions } = decision
    const pool = this.#pools.get(queue) ?? { lastTold: '', toldAt: new Map<string, number>() }
    this.#pools.set(queue, pool)
    const isFresh = now - (pool.toldAt.get(reason) ?? Number.NEGATIVE_INFINITY) < newsAfterMs
    if (actions.length === 0 && (pool.lastTold === reason || isFresh)) return false
    pool.lastTold = reason
    pool.toldAt.set(reason, now)
    return true
  }

  /** Another node may have journaled since. */
  clear(): void {
    this.#pools.clear()
  }
}
