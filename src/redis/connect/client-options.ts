/**
 * How ioredis is set up for each kind of Redis and each purpose of a client; the reasons are beside the values.
 *
 * `commands` fails fast: while Redis is away a command is refused at once, and what was in flight is never sent twice,
 * since it is unknown whether it was carried out. `writes` is the same on a connection of its own, which a WAIT may
 * block. `subscriber` keeps its subscriptions over an outage.
 */
import { Cluster, Redis } from 'ioredis'
import type { ClientOptions, ClusterAddress, RedisAddress, TlsOptions } from './address.ts'
import { type Following, sentinelConnector } from './sentinel-connector.ts'

export type RedisPurpose = 'commands' | 'writes' | 'subscriber'

const backOff = (times: number): number => Math.min(50 * times, 500) + Math.random() * 25

const shared = {
  lazyConnect: true,
  connectTimeout: 5000,
  disconnectTimeout: 500,
  keepAlive: 1000,
  enableReadyCheck: true,
  maxLoadingRetryTime: 50,
  retryStrategy: backOff,
} satisfies ClientOptions

const failFast = {
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  autoResendUnfulfilledCommands: false,
  commandTimeout: 5000,
  // 1: reconnect and reject. Sending it again (2) could carry out one command outside its pipeline.
  reconnectOnError: (error: Error) => (/^(READONLY|MASTERDOWN|LOADING)/.test(error.message) ? 1 : false),
} satisfies ClientOptions

const byPurpose = {
  commands: failFast,
  writes: failFast,
  // No time limit and no retry limit: without the SUBSCRIBE the client would get no messages after the outage.
  subscriber: { maxRetriesPerRequest: null, autoResubscribe: true, autoResendUnfulfilledCommands: true },
} satisfies Record<RedisPurpose, ClientOptions>

/** A client that is not connected yet. `following` belongs to a Sentinel address. */
export function createClient(
  address: RedisAddress,
  purpose: RedisPurpose,
  tls: TlsOptions | undefined,
  following: Following | undefined,
): Redis | Cluster {
  const options: ClientOptions = { ...shared, ...byPurpose[purpose] }
  if (address.kind === 'socket') return new Redis({ ...options, path: address.path })
  const { username, password } = address
  Object.assign(options, username !== undefined && { username }, password !== undefined && { password }, tls && { tls })
  if (address.kind === 'cluster') return createCluster(address, purpose, options)
  options.db = address.db
  if (address.kind === 'single') return new Redis({ ...options, host: address.host, port: address.port })
  return new Redis({
    ...options,
    connectTimeout: 1000,
    // Short, since a switch is over in an instant once it is published, and the Sentinels are asked each time.
    retryStrategy: times => Math.min(25 * times, 100) + Math.random() * 25,
    Connector: sentinelConnector(following as Following, tls),
  })
}

function createCluster(
  { servers }: ClusterAddress,
  purpose: RedisPurpose,
  { retryStrategy, ...options }: ClientOptions,
): Cluster {
  return new Cluster(
    servers.map(server => ({ ...server })),
    {
      lazyConnect: true,
      enableOfflineQueue: purpose === 'subscriber',
      scaleReads: 'master',
      clusterRetryStrategy: backOff,
      // 0: a command whose connection closed is refused, never sent again.
      retryDelayOnFailover: purpose === 'subscriber' ? 100 : 0,
      slotsRefreshTimeout: 1000,
      // Names stay names: a certificate is for a name, and Node looks it up when it connects.
      dnsLookup: (host, callback) => callback(null, host),
      redisOptions: { ...options, connectTimeout: 2000 },
    },
  )
}
