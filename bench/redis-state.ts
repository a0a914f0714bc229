/** What the benchmark asks Redis. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Redis } from 'ioredis'

const quietWithinMs = 30_000

/** Memory of the data: without the buffers of connections and of the append-only file, which come and go. */
export async function dataBytes(redis: Redis): Promise<number> {
  const info = await redis.info('memory')
  const bytes = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0)
  return bytes('used_memory') - bytes('mem_clients_normal') - bytes('mem_aof_buffer')
}

/**
 * Waits until no rewrite of the append-only file runs, so that a round does not pay for what the one before it wrote.
 * @throws Error when that takes more than 30 s
 */
export async function untilQuiet(redis: Redis): Promise<void> {
  const deadlineMs = Date.now() + quietWithinMs
  while (!/aof_rewrite_in_progress:0/.test(await redis.info('persistence'))) {
    if (Date.now() > deadlineMs) throw new Error(`Redis rewrites its file for more than ${quietWithinMs} ms`)
    await delay(20)
  }
}
