/** Repeats what Redis was away for: a failover is over in seconds, and a payload that is half sent cannot be sent again. */
import { setTimeout as delay } from 'node:timers/promises'
import { Problem } from '../../errors.ts'
import { isRedisAway, isRedisFull, NotDurableError } from '../../redis/redis-errors.ts'

const patienceMs = 10_000
const backoffMs = (tries: number): number => (0.5 + Math.random()) * Math.min(50 * 2 ** tries, 800)

/**
 * Each try is bounded by the time limit of its connection.
 * @param action may happen several times
 * @throws Problem redis_unavailable when Redis stays away, overloaded when it is full; whatever else the action throws
 */
export async function patiently<T>(action: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + patienceMs
  for (let tries = 1; ; tries += 1) {
    try {
      return await action()
    } catch (error) {
      if (isRedisFull(error))
        throw new Problem('overloaded', 'Redis has no room for the payload.', { cause: error, retryAfterMs: 10_000 })
      if (!isRedisAway(error)) throw error
      const pauseMs = backoffMs(tries)
      if (performance.now() + pauseMs > deadline) throw away(error)
      await delay(pauseMs)
    }
  }
}

const away = (cause: unknown): Problem =>
  new Problem('redis_unavailable', cause instanceof NotDurableError ? cause.message : undefined, { cause })
