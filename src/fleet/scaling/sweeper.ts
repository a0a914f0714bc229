/**
 * Every few minutes the node that holds the leader lease has the provider remove what instances left behind (volumes).
 * A loop of its own, so that a slow sweep delays no decision. The provider decides what is too young to remove.
 * Unknown instances are not leftovers: the boot timeout ends them.
 */
import type { FastifyBaseLogger } from 'fastify'
import { Loop } from '../../loop.ts'
import { within } from '../../within.ts'
import type { Journal } from '../journal/journal.ts'
import type { Provider } from '../providers/provider.ts'
import { fleetLoop, redisTimeoutMs } from '../timing.ts'
import type { LeaderLease } from './leader-lease.ts'

export interface SweeperOptions {
  readonly provider: Provider
  readonly leaderLease: Pick<LeaderLease, 'hold'>
  readonly journal: Journal
  readonly log: FastifyBaseLogger
  readonly clock: () => number
}

const intervalMs = 180_000
const sweepTimeoutMs = 60_000
/** More than these are counted, not named. */
const namedCount = 50

export class Sweeper {
  readonly #options: SweeperOptions
  readonly #loop: Loop<number>

  constructor(options: SweeperOptions) {
    this.#options = options
    this.#loop = new Loop({ ...fleetLoop, name: 'sweeper', intervalMs, log: options.log, run: () => this.#run() })
  }

  /** Begins to run. Calling twice is safe. */
  start(): void {
    this.#loop.start()
  }

  /**
   * One run, or the one under way. Another node holds the leader lease: nothing is done.
   * @returns how many leftovers were removed
   * @throws when Redis or the provider does not answer; the next run does what was not done
   */
  runOnce(): Promise<number> {
    return this.#loop.runOnce()
  }

  /** Returns when no run is under way and none will come. Calling twice is safe. */
  stop(): Promise<void> {
    return this.#loop.stop()
  }

  async #run(): Promise<number> {
    const { provider, leaderLease, journal, log, clock } = this.#options
    const epoch = await leaderLease.hold()
    if (epoch === undefined) return 0
    const ids = await within(sweepTimeoutMs, 'The provider (sweep)', provider.sweepLeftovers(clock()))
    if (ids.length === 0) return 0
    const action = { kind: 'sweep', leftoverIds: ids.slice(0, namedCount), reason: 'leftover' } as const
    const more = ids.length > namedCount ? ` and ${ids.length - namedCount} more` : ''
    const explanation = `Removed what belongs to no instance any more: ${action.leftoverIds.join(', ')}${more}.`
    log.info({ ...action }, explanation)
    const entry = { queue: '*', at: clock(), epoch, desired: 0, reason: action.reason, explanation, actions: [action] }
    await within(redisTimeoutMs, 'Redis (journal)', journal.write(entry))
    return ids.length
  }
}
