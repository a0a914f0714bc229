/** A node that starts while Redis loads its data, or while a failover is under way, waits instead of ending. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import { isRedisAway } from '../redis/redis-errors.ts'

const waitAtMostMs = 60_000
/** Between two tries; half of it is jitter. */
const pauseMs = 1000

/**
 * Starts, and starts anew for as long as Redis refuses for a reason that passes, for at most a minute.
 * @param start leaves nothing running when it fails
 * @throws StartupError when Redis still refuses then, and at once what `start` throws for any other reason
 */
export async function whenRedisIsReady<T>(start: () => Promise<T>, log: Logger): Promise<T> {
  const giveUpAtMs = performance.now() + waitAtMostMs
  for (let tries = 1; ; tries++) {
    try {
      return await start()
    } catch (error) {
      // What has to be mended first is said in words already.
      if (error instanceof StartupError || !isRedisAway(error)) throw error
      if (performance.now() > giveUpAtMs)
        throw new StartupError(`Redis was not ready within ${waitAtMostMs / 1000} s: ${(error as Error).message}`, {
          cause: error,
        })
      if (tries === 1) log.warn({ err: error }, 'Redis is not ready to work; waiting for it')
      await delay(pauseMs / 2 + (Math.random() * pauseMs) / 2)
    }
  }
}
