/**
 * Connections to Redis: a single one by URL or unix socket, the primary of Sentinels, or a Redis Cluster.
 *
 *   connecting ──ready──▶ ready ──error, close, no pong, switch──▶ away ──ready──▶ ready …
 *                                                                   └──end──▶ connect() again, until closeRedis()
 *
 * End a client by closeRedis() only: after its own quit() it would connect again.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'
import { StartupError } from '../../errors.ts'
import { addressOf, describeAddress, type RedisTarget, tlsOptionsOf } from './address.ts'
import { createClient, type RedisPurpose } from './client-options.ts'
import { Sentinels } from './sentinels.ts'
import { keepSubscribed, type RedisLog, type Supervision, supervise } from './supervise.ts'

/** What callers hold. The keys of one call must share a slot (redis/keys.ts), for it may be a Cluster. */
export type RedisClient = Redis | Cluster

export type ConnectOptions = RedisTarget & {
  readonly purpose: RedisPurpose
  readonly log: RedisLog
  /** How long to wait for the first connection (default 30,000). */
  readonly readyWithinMs?: number
}

interface Attended {
  readonly supervision: Supervision
  readonly sentinels: Sentinels | undefined
  /** Ends its use of the Sentinels. */
  readonly closing: AbortController
  readonly forgetSubscriptions: (() => void) | undefined
}

const quitWithinMs = 2000

const attended = new WeakMap<RedisClient, Attended>()

/**
 * Connects and returns when Redis is ready; from then on the client comes back by itself after every outage.
 * @throws StartupError when Redis does not let us in, or is not ready in time
 */
export async function connectRedis(options: ConnectOptions): Promise<RedisClient> {
  const address = addressOf(options)
  const tls = await tlsOptionsOf(options)
  const closing = new AbortController()
  const user = closing.signal
  const sentinels = address.kind === 'sentinel' ? Sentinels.share(address, tls, user) : undefined
  const client = createClient(address, options.purpose, tls, sentinels && { sentinels, user })
  const where = describeAddress(address)
  const forgetSubscriptions = options.purpose === 'subscriber' ? keepSubscribed(client) : undefined
  const supervision = supervise(client, {
    log: options.log,
    where,
    isRedundant: sentinels !== undefined || isCluster(client),
  })
  attended.set(client, { supervision, sentinels, closing, forgetSubscriptions })
  try {
    await firstReady(client, where, options.readyWithinMs ?? 30_000)
  } catch (error) {
    await closeRedis(client)
    throw error
  }
  return client
}

/** Closes a client of connectRedis() for good; takes 2 s at most and never throws. */
export async function closeRedis(client: RedisClient): Promise<void> {
  const { supervision, closing, forgetSubscriptions } = attended.get(client) ?? {}
  attended.delete(client)
  supervision?.end()
  forgetSubscriptions?.()
  closing?.abort()
  if (client.status === 'ready') {
    await Promise.race([client.quit().catch(() => undefined), delay(quitWithinMs, undefined, { ref: false })])
  }
  if (client.status !== 'end') client.disconnect()
}

/** Disconnects at once and connects again; what is in flight is refused. */
export function reconnect(client: RedisClient): void {
  attended.get(client)?.supervision.disconnect()
}

/**
 * A number that grows with each new connection of this client to a server. When it is the same before the first and
 * after the last of some commands, they went over the same connection (on a Cluster: for keys of one slot).
 */
export function connectionEpoch(client: RedisClient): number {
  return attended.get(client)?.supervision.epoch() ?? 0
}

/** The servers that hold keys: the masters of a Cluster, else the one Redis. */
export const serversOf = (client: RedisClient): Redis[] => (isCluster(client) ? client.nodes('master') : [client])

/** The Sentinels through which a client of connectRedis() finds its primary. */
export const sentinelsOf = (client: RedisClient): Sentinels | undefined => attended.get(client)?.sentinels

export const isCluster = (client: RedisClient): client is Cluster => client instanceof Cluster

async function firstReady(client: RedisClient, where: string, withinMs: number): Promise<void> {
  const deadlineMs = Date.now() + withinMs
  let lastError: Error | undefined
  let stop = (): void => undefined
  const refusal = await new Promise<string | undefined>(resolve => {
    const timer = setTimeout(() => resolve(undefined), withinMs)
    const onReady = (): void => resolve(undefined)
    const onError = (error: Error): void => {
      lastError = error
      const explained = explainRefusal(error)
      if (explained !== undefined) resolve(explained)
    }
    client.on('ready', onReady).on('error', onError)
    stop = () => {
      clearTimeout(timer)
      client.off('ready', onReady).off('error', onError)
    }
    client.connect().catch(() => undefined)
  })
  stop()
  const isReady = refusal === undefined && client.status === 'ready' && (await allReady(client, deadlineMs))
  if (isReady) return
  if (refusal !== undefined) throw new StartupError(`Redis at ${where} ${refusal}`, { cause: lastError })
  throw new StartupError(
    `Redis at ${where} was not ready within ${Math.round(withinMs / 1000)} s: ${reasonOf(lastError)}. ` +
      'Check MUSTER_REDIS_URL (redis:// or rediss:// for TLS), that Redis runs and that this machine may reach it; or unset it, and the node starts a Redis of its own.',
    { cause: lastError },
  )
}

/** A Cluster is ready when one server told of the others; commands are refused until each of them is connected. */
async function allReady(client: RedisClient, deadlineMs: number): Promise<boolean> {
  while (!serversOf(client).every(({ status }) => status === 'ready')) {
    if (Date.now() > deadlineMs) return false
    await delay(10)
  }
  return true
}

function reasonOf(error: Error | undefined): string {
  const inner = (error as { lastNodeError?: Error } | undefined)?.lastNodeError ?? error
  return inner?.message || (inner as NodeJS.ErrnoException | undefined)?.code || 'no answer'
}

/**
 * Errors at connecting that waiting does not fix, each with what to do: told at once instead of after the time limit.
 */
interface Refusal {
  readonly pattern: RegExp
  readonly explain: (reason: string) => string
}

const refusals: readonly Refusal[] = [
  {
    pattern: /(NOAUTH|WRONGPASS|NOPERM|ERR invalid password|ERR AUTH).*\(Sentinel /,
    explain: reason =>
      `cannot be found: its Sentinels do not let us in: ${reason}. The user and password of MUSTER_REDIS_URL are used ` +
      'for them too; put "?sentinelUsername=…&sentinelPassword=…" at its end where theirs differ, and an empty ' +
      '"?sentinelPassword=" where they ask for none.',
  },
  {
    pattern: /^(Ready check failed: )?(NOAUTH|WRONGPASS|NOPERM|ERR invalid password|ERR AUTH)/,
    explain: reason => `does not let us in: ${reason}. Put the right user and password into MUSTER_REDIS_URL.`,
  },
  {
    pattern: /cluster support disabled/,
    explain: () => 'is no Redis Cluster: leave "+cluster" out of MUSTER_REDIS_URL.',
  },
  {
    pattern: /altnames|Hostname\/IP does not match/,
    explain: reason =>
      `has a certificate for another name: ${reason}. Set MUSTER_REDIS_TLS_NAME to a name that its certificate bears.`,
  },
  {
    pattern: /self[- ]signed certificate|unable to (verify the first|get (local )?issuer) certificate/i,
    explain: reason =>
      `has a certificate of an unknown authority: ${reason}. Set MUSTER_REDIS_CA_FILE to the file of that authority.`,
  },
  {
    pattern: /certificate has expired/,
    explain: () => 'has a certificate that is no longer valid. Give it a new one.',
  },
]

/** What to tell the user, as a completion of "Redis at … "; undefined when waiting may help. */
export function explainRefusal(error: Error): string | undefined {
  const { message } = (error as { lastNodeError?: Error }).lastNodeError ?? error
  return refusals.find(({ pattern }) => pattern.test(message))?.explain(message)
}
