/**
 * Room in Redis: enqueueing ends while there is still enough memory for the jobs at hand to be finished and collected.
 * A Redis without `maxmemory` has no such limit to look at.
 */
import type { Logger } from 'pino'
import { Problem } from '../errors.ts'
import { type RedisClient, serversOf } from '../redis/connection.ts'
import { Loop } from './loop.ts'

/** Above this share of maxmemory nothing new is taken. */
const fullShare = 0.9

export class Room {
  readonly loop: Loop
  #usedShare = 0

  constructor(redis: RedisClient, log: Logger) {
    const read = async (): Promise<void> => {
      const shares = await Promise.all(serversOf(redis).map(async server => usedShare(await server.info('memory'))))
      // Of a Cluster the fullest server counts: any of them may hold the next job.
      this.#usedShare = Math.max(0, ...shares)
    }
    this.loop = new Loop('memory check', 1000, read, log)
  }

  /** @throws Problem overloaded */
  check(): void {
    if (this.#usedShare < fullShare) return
    throw new Problem(
      'overloaded',
      `Redis uses ${Math.round(this.#usedShare * 100)} % of its memory limit; finished jobs still have room.`,
      { retryAfterMs: 10_000 },
    )
  }
}

function usedShare(info: string): number {
  const number = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0)
  const limit = number('maxmemory')
  return limit === 0 ? 0 : number('used_memory') / limit
}
