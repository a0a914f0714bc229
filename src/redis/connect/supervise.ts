/**
 * Keeps a client alive: says once when Redis is away and when it is back, disconnects from a silent server, and
 * connects a client again that ended by itself.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'
import type { Logger } from 'pino'
import { describeHost } from './address.ts'

export type RedisLog = Pick<Logger, 'info' | 'warn'>

export interface Supervision {
  /** Disconnects at once and connects again. */
  disconnect(): void
  /** Grows with each new connection to a server. */
  epoch(): number
  /** Ends the supervision. */
  end(): void
}

export interface SuperviseOptions {
  readonly log: RedisLog
  readonly where: string
  /** There is another server to go to, so silence is noticed sooner. */
  readonly isRedundant: boolean
}

const reconnectAfterMs = 200
const slotsEveryMs = 2000
interface Pace {
  readonly everyMs: number
  readonly pongWithinMs: number
  /** Connected for this long and still not ready: the server does not answer. */
  readonly greetWithinMs: number
}

const pace = (isRedundant: boolean): Pace =>
  isRedundant
    ? { everyMs: 1000, pongWithinMs: 2000, greetWithinMs: 2000 }
    : { everyMs: 5000, pongWithinMs: 5000, greetWithinMs: 10_000 }

export function supervise(client: Redis | Cluster, options: SuperviseOptions): Supervision {
  let closing = false
  const stopOutages = reportOutages(client, options)
  client.on('end', () => {
    setTimeout(() => {
      if (!closing && client.status === 'end') client.connect().catch(() => undefined)
    }, reconnectAfterMs)
  })
  const parts = client instanceof Cluster ? superviseCluster(client, options) : superviseServer(client, options)
  return {
    ...parts,
    end() {
      closing = true
      stopOutages()
      parts.end()
    },
  }
}

/** One message for each outage and one for its end. */
function reportOutages(client: Redis | Cluster, { log, where }: SuperviseOptions): () => void {
  let quiet = false
  let wasReady = false
  let awaySinceMs: number | undefined
  const away = (error?: Error): void => {
    if (quiet || !wasReady || awaySinceMs !== undefined) return
    awaySinceMs = Date.now()
    log.warn({ redis: where, ...(error && { err: error }) }, 'Redis is away')
  }
  client.on('error', away)
  client.on('close', () => away())
  client.on('ready', () => {
    if (awaySinceMs !== undefined) log.info({ redis: where, awayMs: Date.now() - awaySinceMs }, 'Redis is back')
    awaySinceMs = undefined
    wasReady = true
  })
  return () => {
    quiet = true
  }
}

function superviseServer(client: Redis, { isRedundant }: SuperviseOptions): Supervision {
  const { everyMs, pongWithinMs, greetWithinMs } = pace(isRedundant)
  let connectedAtMs = 0
  // Not disconnect(): it waits for the other side to agree, which a stopped server never does.
  const disconnect = (): void => void client.stream?.destroy()
  client.on('connect', () => {
    connectedAtMs = Date.now()
  })
  const pings = setInterval(() => {
    if (client.status === 'ready') void unlessPong(client, pongWithinMs, disconnect)
    else if (client.status === 'connect' && Date.now() - connectedAtMs > greetWithinMs) disconnect()
  }, everyMs).unref()
  return {
    disconnect,
    // ioredis counts before it connects, so no command can pass in between.
    epoch: () => Reflect.get(client, 'connectionEpoch') as number,
    end: () => clearInterval(pings),
  }
}

/** Each server of a Cluster has a client of its own, which connects once; a new connection is a new client. */
function superviseCluster(cluster: Cluster, { log, where, isRedundant }: SuperviseOptions): Supervision {
  const { everyMs, pongWithinMs } = pace(isRedundant)
  const awaySinceMs = new Map<string, number>()
  let ended = false
  let changes = 0
  cluster.on('+node', (server: Redis) => {
    changes += 1
    const name = nameOf(server)
    server.on('ready', () => {
      const since = awaySinceMs.get(name)
      if (since !== undefined)
        log.info({ redis: where, server: name, awayMs: Date.now() - since }, 'a server of the Redis Cluster is back')
      awaySinceMs.delete(name)
    })
    // Commands are refused while it connects, so it does that before the first one comes.
    setImmediate(() => {
      if (!ended && server.status === 'wait' && server.options.readOnly !== true)
        server.connect().catch(() => undefined)
    })
  })
  cluster.on('-node', (server: Redis) => {
    changes += 1
    const name = nameOf(server)
    if (ended || cluster.status !== 'ready' || awaySinceMs.has(name)) return
    awaySinceMs.set(name, Date.now())
    log.warn({ redis: where, server: name }, 'a server of the Redis Cluster is away')
  })
  const pings = setInterval(() => {
    for (const server of cluster.nodes())
      if (server.status === 'ready') void unlessPong(server, pongWithinMs, () => void server.stream?.destroy())
  }, everyMs).unref()
  // A server that is stopped but connected never says that its slots are another's now. Not by ioredis' own
  // slotsRefreshInterval: a client that is closed while it asks goes on asking for ever.
  const refreshes = setInterval(() => {
    if (cluster.status === 'ready') cluster.refreshSlotsCache()
  }, slotsEveryMs).unref()
  return {
    disconnect() {
      for (const server of cluster.nodes()) server.stream?.destroy()
    },
    epoch: () => changes,
    end() {
      ended = true
      clearInterval(pings)
      clearInterval(refreshes)
    },
  }
}

const nameOf = ({ options: { host = '', port = 0 } }: Redis): string => describeHost({ host, port })

/** A host that vanished sends no end of connection: without a pong we disconnect and connect again. */
async function unlessPong(client: Redis, withinMs: number, disconnect: () => void): Promise<void> {
  const epoch = Reflect.get(client, 'connectionEpoch') as number
  const ping = client.ping().then(
    () => true,
    () => false,
  )
  const answered = await Promise.race([ping, delay(withinMs, false, { ref: false })])
  if (!answered && client.status === 'ready' && Reflect.get(client, 'connectionEpoch') === epoch) disconnect()
}

/**
 * Keeps the subscriptions of a client over outages. ioredis subscribes again by itself, but without looking at the
 * outcome, and on a Cluster it forgets to after all servers were away.
 */
type Subscribe = (...channels: string[]) => Promise<unknown>

const againEveryMs = 1000
const answerWithinMs = 2000
const missesUntilReconnect = 3

/** Keeps the subscriptions of this client; the returned function ends that. */
export function keepSubscribed(client: Redis | Cluster): () => void {
  const subscribe = client.subscribe.bind(client) as Subscribe
  const channels = new Set<string>()
  Reflect.set(client, 'subscribe', (...names: string[]) => {
    for (const channel of names.flat()) channels.add(channel)
    const outcome = subscribe(...names)
    // ioredis calls this itself at a reconnect; a close in that moment must not end the process.
    outcome.catch(() => undefined)
    return outcome
  })
  return client instanceof Cluster ? repeat(client, subscribe, channels) : () => undefined
}

/** Subscribing twice is harmless, so it is done each second; a server that does not answer is disconnected. */
function repeat(cluster: Cluster, subscribe: Subscribe, channels: ReadonlySet<string>): () => void {
  let misses = 0
  let busy = false
  const timer = setInterval(async () => {
    if (busy || channels.size === 0 || cluster.status !== 'ready') return
    busy = true
    const outcome = subscribe(...channels).then(
      () => true,
      () => false,
    )
    const answered = await Promise.race([outcome, delay(answerWithinMs, false, { ref: false })])
    misses = answered ? 0 : misses + 1
    if (misses >= missesUntilReconnect && cluster.status === 'ready') {
      misses = 0
      cluster.disconnect(true)
    }
    busy = false
  }, againEveryMs).unref()
  return () => clearInterval(timer)
}
