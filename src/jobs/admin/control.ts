/** What an operator may do to a queue: pause, drain, resume; and its figures. */

import type { Logger } from 'pino'
import { Problem } from '../../errors.ts'
import { Loop } from '../../loop.ts'
import type { Notifier } from '../../notifier.ts'
import { Script } from '../../redis/script.ts'
import { bullFields, bullKeys, delayedUnit } from '../bullmq/bull-layout.ts'
import { isCancelled } from '../bullmq/cancel.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import { countByType, sortWaiting } from '../bullmq/lanes.ts'

export interface QueueCounts {
  /** Ready to be claimed, prioritised ones included. */
  readonly waiting: number
  readonly delayed: number
  readonly running: number
  readonly succeeded: number
  readonly dead: number
  readonly cancelled: number
  /** Results that nobody holds; dead jobs are not among them. */
  readonly uncollected: number
  readonly leased: number
}

/** running: all as usual. paused: nothing is claimed. draining: nothing new is taken, what is there is finished. */
export type QueueState = 'running' | 'paused' | 'draining'

/** What the autoscaler sees of a queue. */
export interface QueueLoad {
  /** Ready to be claimed, and of the types asked for. */
  readonly waiting: number
  /** Of which types those are. */
  readonly waitingTypes: readonly string[]
  /** Ready, but of other types. */
  readonly unrunnable: number
  /** Delayed, and due within the time asked for. */
  readonly dueDelayed: number
  readonly running: number
  /** Attempts finished, and the time they ran, over all time. */
  readonly finishedCount: number
  readonly busyMs: number
  readonly paused: boolean
}

/** Delayed jobs that are asked for their type at once. */
const dueSample = 500

/** KEYS: control of a queue. Also in a full Redis: no new jobs is what helps there. */
const drainScript = new Script<number>('drain_queue', `return redis.call('HSET', KEYS[1], 'draining', '1')`, {
  whenFull: true,
})

const sum = (counts: Iterable<number>): number => [...counts].reduce((all, one) => all + one, 0)

export class Control {
  readonly #queue: JobQueue
  readonly #notifier: Notifier
  readonly #loop: Loop
  readonly #stopListening: () => void
  #draining = false

  constructor(queue: JobQueue, notifier: Notifier, log: Logger) {
    this.#queue = queue
    this.#notifier = notifier
    this.#loop = new Loop({
      name: `state of queue ${queue.name}`,
      intervalMs: 1000,
      run: () => this.#refresh(),
      log,
    })
    this.#stopListening = notifier.on(`queue:${queue.name}`, () => {
      this.#loop.runAfresh().catch(() => undefined)
    })
  }

  async start(): Promise<void> {
    await this.#refresh()
    this.#loop.start()
  }

  async stop(): Promise<void> {
    this.#stopListening()
    await this.#loop.stop()
  }

  /**
   * @param workId what an Idempotency-Key stands for: a job that is there was taken before, and is answered as it was
   * then, since that answer may have been lost
   * @throws Problem queue_draining
   */
  async checkTakesJobs(workId?: string): Promise<void> {
    if (!this.#draining) return
    const { redis, name } = this.#queue
    if (workId !== undefined) {
      if ((await redis.exists(this.#queue.jobKey(workId))) === 1) return
      if (await isCancelled(this.#queue, workId)) return
    }
    throw new Problem('queue_draining', `The queue "${name}" is draining.`)
  }

  /** Nothing is claimed from now on; new jobs are still taken. */
  async pause(): Promise<void> {
    await this.#queue.confirm(() => this.#queue.bull.pause())
    this.#changed()
  }

  /** No new jobs from now on; those that are there are finished. */
  async drain(): Promise<void> {
    await this.#queue.confirm(() => drainScript.run(this.#queue.redis, [this.#queue.keys.control]))
    this.#draining = true
    this.#changed()
  }

  /** Ends a pause and a drain. */
  async resume(): Promise<void> {
    await this.#queue.confirm(async () => {
      await this.#queue.redis.hdel(this.#queue.keys.control, 'draining')
      await this.#queue.bull.resume()
    })
    this.#draining = false
    this.#changed()
  }

  async state(): Promise<QueueState> {
    if (await this.#queue.bull.isPaused()) return 'paused'
    return (await this.#queue.redis.hexists(this.#queue.keys.control, 'draining')) === 1 ? 'draining' : 'running'
  }

  async counts(): Promise<QueueCounts> {
    const { redis, keys, bull } = this.#queue
    const counts = await bull.getJobCounts('wait', 'prioritized', 'delayed', 'active', 'completed', 'failed')
    const [ready, cancelled, uncollected, leased] = await Promise.all([
      countByType(this.#queue),
      redis.zcard(keys.cancelled),
      redis.zcard(keys.uncollected),
      redis.zcard(keys.leased),
    ])
    return {
      waiting: (counts.wait ?? 0) + (counts.prioritized ?? 0) + sum(ready.values()),
      delayed: counts.delayed ?? 0,
      running: counts.active ?? 0,
      succeeded: counts.completed ?? 0,
      dead: counts.failed ?? 0,
      cancelled,
      uncollected,
      leased,
    }
  }

  /** @param types what is to be counted: what waits for other types is `unrunnable`; left out: all count */
  async load(dueWithinMs: number, types?: readonly string[]): Promise<QueueLoad> {
    const { redis, keys, bull } = this.#queue
    await sortWaiting(this.#queue)
    const [counts, ready, due, stats, paused] = await Promise.all([
      bull.getJobCounts('active'),
      countByType(this.#queue),
      this.#dueByType(dueWithinMs),
      redis.hmget(keys.stats, 'finished', 'busyUs'),
      bull.isPaused(),
    ])
    const isCounted = ([type]: readonly [string, number]): boolean => types === undefined || types.includes(type)
    const counted = [...ready].filter(isCounted)
    const waiting = sum(counted.map(([, count]) => count))
    return {
      waiting,
      waitingTypes: counted.map(([type]) => type),
      unrunnable: sum(ready.values()) - waiting,
      dueDelayed: sum([...due].filter(isCounted).map(([, count]) => count)),
      running: counts.active ?? 0,
      finishedCount: Number(stats[0] ?? 0),
      busyMs: Number(stats[1] ?? 0) / 1000,
      paused,
    }
  }

  /** Of very many only some are asked for their type, and stand for all. */
  async #dueByType(withinMs: number): Promise<Map<string, number>> {
    const { redis, bull } = this.#queue
    const delayed = bull.toKey(bullKeys.delayed)
    const until = (Date.now() + withinMs) * delayedUnit
    const [count, some] = await Promise.all([
      redis.zcount(delayed, '-inf', until),
      redis.zrangebyscore(delayed, '-inf', until, 'LIMIT', 0, dueSample),
    ])
    const byType = new Map<string, number>()
    if (some.length === 0) return byType
    const pipeline = redis.pipeline()
    for (const workId of some) pipeline.hget(this.#queue.jobKey(workId), bullFields.type)
    for (const [, type] of (await pipeline.exec()) ?? [])
      if (typeof type === 'string') byType.set(type, (byType.get(type) ?? 0) + count / some.length)
    return new Map([...byType].map(([type, share]) => [type, Math.round(share)]))
  }

  #changed(): void {
    for (const topic of [`queue:${this.#queue.name}`, `jobs:${this.#queue.name}`, 'backlog'])
      this.#notifier.notify(topic)
  }

  async #refresh(): Promise<void> {
    this.#draining = (await this.#queue.redis.hexists(this.#queue.keys.control, 'draining')) === 1
  }
}
