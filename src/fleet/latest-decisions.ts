/** The latest decision about each pool, as all nodes see it: also one that changed nothing, which the journal leaves out. */
import type { RedisClient } from '../redis/connection.ts'
import { Script } from '../redis/script.ts'
import type { BootMedians } from './boot-log.ts'
import { keys } from './keys.ts'
import { packInputs, type RecordedInputs, unpackInputs } from './recorded-inputs.ts'
import type { Decision, PoolSnapshot } from './snapshot.ts'

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
