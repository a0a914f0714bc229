/**
 * Connections to one Redis, by URL or unix socket.
 *
 *   connecting ──ready──▶ ready ──error, close, no pong──▶ away ──ready──▶ ready …
 *                                                            └──end──▶ connect() again, until closeRedis()
 *
 * `commands` fails fast: while Redis is away a command is refused at once, and what was in flight is never sent twice,
 * since nobody knows whether it was carried out. `subscriber` keeps its subscriptions over an outage.
 * End a client by closeRedis() only: after its own quit() it would be revived.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Redis, type RedisOptions } from 'ioredis'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'

export type RedisAddress = { readonly url: string } | { readonly socketPath: string }

export type ConnectOptions = RedisAddress & {
  readonly role: 'commands' | 'subscriber'
  readonly log: Pick<Logger, 'info' | 'warn'>
  /** How long to wait for the first connection (default 30,000). */
  readonly readyWithinMs?: number
}

const reviveAfterMs = 200
const pingEveryMs = 5000
const pongWithinMs = 5000
const quitWithinMs = 2000

const shared = {
  lazyConnect: true,
  connectTimeout: 5000,
  keepAlive: 1000,
  enableReadyCheck: true,
  maxLoadingRetryTime: 50,
  retryStrategy: (times: number) => Math.min(50 * times, 500) + Math.random() * 25,
} satisfies RedisOptions

const byRole = {
  commands: {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    commandTimeout: 5000,
    // 1: reconnect and reject. Sending it again (2) could carry out one command apart from its pipeline.
    reconnectOnError: (error: Error) => (/^(READONLY|MASTERDOWN|LOADING)/.test(error.message) ? 1 : false),
  },
  // No time limit and no retry limit: a SUBSCRIBE that was given up would leave the client deaf after the outage.
  subscriber: { maxRetriesPerRequest: null, autoResubscribe: true, autoResendUnfulfilledCommands: true },
} satisfies Record<ConnectOptions['role'], RedisOptions>

/** Ends the supervision of a client. */
const supervisions = new WeakMap<Redis, () => void>()

/**
 * Connects and returns when Redis is ready; from then on the client comes back by itself after every outage.
 * @throws StartupError when Redis does not let us in, or is not ready in time
 */
export async function connectRedis(options: ConnectOptions): Promise<Redis> {
  const settings = { ...shared, ...byRole[options.role] }
  const client =
    'url' in options ? new Redis(options.url, settings) : new Redis({ ...settings, path: options.socketPath })
  const where = describeAddress(options)
  if (options.role === 'subscriber') settleSubscriptions(client)
  supervise(client, options.log.info.bind(options.log), options.log.warn.bind(options.log), where)
  try {
    await firstReady(client, where, options.readyWithinMs ?? 30_000)
  } catch (error) {
    await closeRedis(client)
    throw error
  }
  return client
}

/** Closes a client of connectRedis() for good; takes 2 s at most and never throws. */
export async function closeRedis(client: Redis): Promise<void> {
  supervisions.get(client)?.()
  supervisions.delete(client)
  if (client.status === 'ready') {
    await Promise.race([client.quit().catch(() => undefined), delay(quitWithinMs, undefined, { ref: false })])
  }
  if (client.status !== 'end') client.disconnect()
}

/** The address as it may be logged: without password. */
export function describeAddress(address: RedisAddress): string {
  if ('socketPath' in address) return address.socketPath
  try {
    const { protocol, username, host, pathname } = new URL(address.url)
    return `${protocol}//${username === '' ? '' : `${username}:***@`}${host}${pathname}`
  } catch {
    return 'the given URL'
  }
}

type Say = (fields: Record<string, unknown>, message: string) => void

function supervise(client: Redis, info: Say, warn: Say, where: string): void {
  let closing = false
  let wasReady = false
  let awaySinceMs: number | undefined
  const away = (error?: Error): void => {
    if (closing || !wasReady || awaySinceMs !== undefined) return
    awaySinceMs = Date.now()
    warn({ redis: where, ...(error && { err: error }) }, 'Redis is away')
  }
  const revive = (): void => {
    setTimeout(() => {
      if (!closing && client.status === 'end') client.connect().catch(() => undefined)
    }, reviveAfterMs)
  }
  client.on('error', away)
  client.on('close', () => away())
  client.on('end', () => {
    if (!closing) revive()
  })
  client.on('ready', () => {
    if (awaySinceMs !== undefined) info({ redis: where, awayMs: Date.now() - awaySinceMs }, 'Redis is back')
    awaySinceMs = undefined
    wasReady = true
  })
  const pings = setInterval(() => {
    if (client.status === 'ready') void reconnectUnlessPong(client)
  }, pingEveryMs).unref()
  supervisions.set(client, () => {
    closing = true
    clearInterval(pings)
  })
}

/** A host that vanished sends no end of connection: without a pong we hang up and dial again. */
async function reconnectUnlessPong(client: Redis): Promise<void> {
  const ping = client.ping().then(
    () => true,
    () => false,
  )
  const answered = await Promise.race([ping, delay(pongWithinMs, false, { ref: false })])
  if (!answered && client.status === 'ready') client.disconnect(true)
}

/** ioredis subscribes again without looking at the outcome; a close in that moment must not end the process. */
function settleSubscriptions(client: Redis): void {
  const subscribe = client.subscribe.bind(client) as (...channels: unknown[]) => Promise<unknown>
  Reflect.set(client, 'subscribe', (...channels: unknown[]) => {
    const outcome = subscribe(...channels)
    outcome.catch(() => undefined)
    return outcome
  })
}

const refused = /^(Ready check failed: )?(NOAUTH|WRONGPASS|NOPERM|ERR invalid password|ERR AUTH)/

async function firstReady(client: Redis, where: string, withinMs: number): Promise<void> {
  let lastError: Error | undefined
  let stop = (): void => undefined
  const outcome = await new Promise<'ready' | 'refused' | 'late'>(resolve => {
    const timer = setTimeout(() => resolve('late'), withinMs)
    const onReady = (): void => resolve('ready')
    const onError = (error: Error): void => {
      lastError = error
      if (refused.test(error.message)) resolve('refused')
    }
    client.on('ready', onReady).on('error', onError)
    stop = () => {
      clearTimeout(timer)
      client.off('ready', onReady).off('error', onError)
    }
    client.connect().catch(() => undefined)
  })
  stop()
  if (outcome === 'ready') return
  const reason = lastError?.message || (lastError as NodeJS.ErrnoException | undefined)?.code || 'no answer'
  throw new StartupError(
    outcome === 'refused'
      ? `Redis at ${where} does not let us in: ${reason}. Put the right user and password into MUSTER_REDIS_URL.`
      : `Redis at ${where} was not ready within ${Math.round(withinMs / 1000)} s: ${reason}. ` +
          'Check MUSTER_REDIS_URL (redis:// or rediss:// for TLS), that Redis runs and that this machine may reach it; or unset it, and the node starts a Redis of its own.',
    { cause: lastError },
  )
}
