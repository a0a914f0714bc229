/**
 * The last resort against claims that hang: counts what waits over a connection of its own, and when work waits,
 * workers ask and nothing is claimed, it has the connections made anew; when that does not help, it has the process
 * ended, so that whoever supervises it starts it afresh. When that is the case, `stuck.ts` decides.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { Loop } from '../../loop.ts'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { queueKey } from '../../redis/keys.ts'
import { bullKeys } from '../bullmq/bull-layout.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import { countByType } from '../bullmq/lanes.ts'
import type { Claims } from '../run/claims.ts'
import { judge, noSuspicion, type QueueSight, type Sight, type Suspicion } from './stuck.ts'

export interface WatchdogOptions {
  readonly queues: readonly { readonly queue: JobQueue; readonly claims: Pick<Claims, 'activity'> }[]
  /** Shares no connection with the claims. */
  readonly redis: RedisClient
  /** How long nothing must move; 0: no watchdog. */
  readonly windowMs: number
  readonly log: Logger
  /** Makes the connections anew that claims use. */
  readonly recycle: () => void
  /** Ends the process. */
  readonly end: () => void
  readonly clock?: () => number
}

/** Ends a process that hangs: whoever supervises the node starts it anew, and sees why it ended. */
export const watchdogExitCode = 75

const longestTickMs = 1000
const looksPerWindow = 10
/** How much of the window a question counts that was answered, or refused. */
const askedShare = 0.8
/** The mark of a look expires by itself. */
const markMs = 60_000

export class Watchdog {
  readonly #options: WatchdogOptions
  readonly #loop: Loop
  readonly #tickMs: number
  readonly #clock: () => number
  #suspicion: Suspicion = noSuspicion

  constructor(options: WatchdogOptions) {
    this.#options = options
    this.#clock = options.clock ?? Date.now
    this.#tickMs = Math.max(10, Math.min(longestTickMs, options.windowMs / looksPerWindow))
    this.#loop = new Loop({
      name: 'watchdog',
      intervalMs: this.#tickMs,
      run: () => this.#look(),
      log: options.log,
    })
  }

  start(): void {
    if (this.#options.windowMs > 0) this.#loop.start()
  }

  async stop(): Promise<void> {
    await this.#loop.stop()
  }

  async #look(): Promise<void> {
    const { windowMs, log, recycle, end } = this.#options
    const sight = await this.#see()
    const { suspicion, action, queue, stuckMs } = judge(this.#suspicion, sight, windowMs, this.#clock())
    this.#suspicion = suspicion
    if (action === 'none') return
    const waiting = sight?.find(seen => seen.queue === queue)?.waiting
    const found = { queue, stuckMs, waiting }
    if (action === 'recycle') {
      log.error(found, 'work waits and workers ask, but nothing is claimed: the connections to Redis are made anew')
      recycle()
    } else {
      log.fatal(
        { ...found, exitCode: watchdogExitCode },
        'still nothing is claimed, with new connections too: the node ends itself, to be started anew',
      )
      end()
    }
  }

  /** Undefined when Redis does not answer soon, or takes no write now: then claims have every right to fail. */
  async #see(): Promise<Sight> {
    const sights = Promise.all(this.#options.queues.map(part => this.#seeOne(part))).catch(() => undefined)
    return await Promise.race([sights, delay(this.#options.windowMs / 4, undefined, { ref: false })])
  }

  async #seeOne({ queue, claims }: WatchdogOptions['queues'][number]): Promise<QueueSight> {
    const { activity } = claims
    // Less than a window: the last claim of a worker that is busy since is out of sight before the window is over.
    const asked = activity.askedFor(performance.now() - askedShare * this.#options.windowMs)
    const { redis } = this.#options
    const [replies, lanes] = await Promise.all([
      redis
        .pipeline()
        .set(queueKey(queue.name, 'watchdog'), this.#clock(), 'PX', markMs)
        .llen(queue.bull.toKey(bullKeys.wait))
        .zcard(queue.bull.toKey(bullKeys.prioritized))
        .hexists(queue.bull.toKey(bullKeys.meta), 'paused')
        .exec(),
      countByType(queue, redis),
    ])
    const values = (replies ?? []).map(([error, value]) => {
      if (error !== null) throw error
      return Number(value)
    })
    const [, unsorted = 0, unsortedPrioritized = 0, isPaused = 0] = values
    // What nobody who asks can run has every right to wait. Whoever asks sorts first, so what is not sorted counts.
    const ready = [...lanes].filter(([type]) => asked?.(type)).reduce((sum, [, count]) => sum + count, 0)
    return {
      queue: queue.name,
      waiting: isPaused === 1 ? 0 : unsorted + unsortedPrioritized + ready,
      isAsked: asked !== undefined,
      claimedCount: activity.claimedCount,
    }
  }
}
