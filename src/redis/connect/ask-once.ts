/** One question to one Redis or Sentinel, on a connection that ends with it. */
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { ClientOptions } from './address.ts'

/**
 * Connects, runs `use`, and disconnects.
 * @throws when there is no connection, `use` fails, or all of it takes longer than `withinMs`
 */
export async function askOnce<T>(
  options: ClientOptions,
  withinMs: number,
  use: (client: Redis) => Promise<T>,
): Promise<T> {
  const client = new Redis({
    connectTimeout: withinMs,
    ...options,
    lazyConnect: true,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    // A server that loads its data says so itself.
    enableReadyCheck: false,
    disableClientInfo: true,
  })
  let fault: Error | undefined
  client.on('error', (error: Error) => {
    fault ??= error
  })
  const late = new AbortController()
  try {
    const answer = client.connect().then(() => use(client))
    answer.catch(() => undefined) // it may lose the race, and fail later when we disconnect
    return await Promise.race([
      answer,
      delay(withinMs, undefined, { signal: late.signal }).then(() => {
        throw new Error(`no answer within ${withinMs} ms`)
      }),
    ])
  } catch (error) {
    // "Connection is closed" says less than why.
    throw fault ?? error
  } finally {
    late.abort()
    client.disconnect()
  }
}

/** Lists of name and value, as Sentinel replies, as a map. */
export function toMap(reply: unknown): Map<string, string> {
  const parts = Array.isArray(reply) ? reply.map(String) : []
  return new Map(parts.flatMap((name, at) => (at % 2 === 0 ? [[name, parts[at + 1] ?? ''] as const] : [])))
}
