/**
 * Questions to one Redis or Sentinel, each on a connection of its own that ends with it, in a given time. For the times
 * when it is not known who is there, and for commands that no node gives.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { tlsName } from './copies.ts'

export interface Target {
  readonly address: string
  readonly port: number
  readonly username?: string
  readonly password?: string
  /** Over TLS, with a certificate of this authority (PEM; unset: one that the system knows) for this name. */
  readonly tls?: { readonly ca?: string; readonly name?: string }
}

/**
 * Connects, lets `use` speak, and hangs up.
 * @throws when there is no connection, `use` fails, or all of it takes longer than `withinMs`
 */
export async function ask<T>(target: Target, withinMs: number, use: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis({
    host: target.address,
    port: target.port,
    ...(target.username !== undefined && { username: target.username }),
    ...(target.password !== undefined && { password: target.password }),
    ...(target.tls && {
      tls: { servername: target.tls.name ?? tlsName, ...(target.tls.ca !== undefined && { ca: target.tls.ca }) },
    }),
    lazyConnect: true,
    connectTimeout: withinMs,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    enableReadyCheck: false,
    disableClientInfo: true,
  })
  let fault: Error | undefined
  client.on('error', (error: Error) => {
    fault ??= error
  })
  const late = new AbortController()
  try {
    const spoken = client.connect().then(() => use(client))
    spoken.catch(() => undefined) // it may lose the race, and fail later when we hang up
    return await Promise.race([
      spoken,
      delay(withinMs, undefined, { signal: late.signal }).then(() => {
        throw new Error(`no answer from ${target.address}:${target.port} within ${withinMs} ms`)
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

/** The lines of INFO as a map. */
export function parseInfo(text: string): Map<string, string> {
  const lines = text.split(/\r?\n/).filter(line => line.includes(':') && !line.startsWith('#'))
  return new Map(lines.map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]))
}
