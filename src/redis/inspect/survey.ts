/**
 * Looks at every Redis and every Sentinel of a deployment, each over a connection of its own, once: what they are, what
 * they say of themselves and of each other. It evaluates nothing and changes nothing.
 */
import type { Redis } from 'ioredis'
import {
  addressOf,
  type ClientOptions,
  type Credentials,
  describeHost,
  type HostAndPort,
  type RedisAddress,
  type RedisTarget,
  type TlsOptions,
  tlsOptionsOf,
} from '../connect/address.ts'
import { askOnce, toMap } from '../connect/ask-once.ts'
import { type RedisInfo, readInfo } from './info.ts'

export interface ServerSurvey {
  /** host:port, or the path of a socket. */
  readonly where: string
  /** Why it could not be asked; the rest is empty then. */
  readonly error?: string
  readonly pingMs: number
  /** Its clock against that of this machine: above 0 when it is ahead. */
  readonly clockAheadMs: number
  readonly info: RedisInfo
  /** Empty when CONFIG is forbidden. */
  readonly config: ReadonlyMap<string, string>
}

export interface SentinelSurvey {
  readonly where: string
  readonly error?: string
  /** Its own id, which no other has. */
  readonly id?: string
  /** The primary that it names. */
  readonly primary?: string
  /** What CKQUORUM says: "OK …", or what is missing. */
  readonly quorum: string
  /** The replicas and the other Sentinels that it knows. */
  readonly replicas: readonly string[]
  readonly others: readonly string[]
}

export interface RedisSurvey {
  readonly kind: RedisAddress['kind']
  readonly servers: readonly ServerSurvey[]
  readonly sentinels: readonly SentinelSurvey[]
}

interface Access {
  readonly credentials: Credentials
  readonly tls: TlsOptions | undefined
}

const connectWithinMs = 2000
const answerWithinMs = 4000
const configNames = [
  'maxmemory-policy',
  'appendonly',
  'appendfsync',
  'min-replicas-to-write',
  'min-replicas-max-lag',
  'maxmemory',
]

/**
 * @returns what was found; a server that does not answer within some seconds is in it, with its error
 * @throws StartupError when the address or the file of the authority cannot be read
 */
export async function surveyRedis(target: RedisTarget): Promise<RedisSurvey> {
  const address = addressOf(target)
  const tls = await tlsOptionsOf(target)
  if (address.kind === 'socket') {
    const server = await surveyServer(address.path, { path: address.path })
    return { kind: 'socket', servers: [server], sentinels: [] }
  }
  const { username, password } = address
  const credentials = { ...(username !== undefined && { username }), ...(password !== undefined && { password }) }
  const access = { credentials, tls }
  const serversAt = async (places: readonly HostAndPort[]): Promise<ServerSurvey[]> =>
    await Promise.all(places.map(place => surveyServer(describeHost(place), optionsFor(place, access))))
  if (address.kind === 'single') return { kind: 'single', servers: await serversAt([address]), sentinels: [] }
  if (address.kind === 'cluster') {
    const places = await clusterPlaces(address.servers, access)
    return { kind: 'cluster', servers: await serversAt(places), sentinels: [] }
  }
  const watching = { credentials: address.sentinelCredentials, tls }
  const sentinels = await Promise.all(
    address.sentinels.map(place => surveySentinel(describeHost(place), optionsFor(place, watching), address.name)),
  )
  const known = sentinels.flatMap(({ primary, replicas }) => [...(primary === undefined ? [] : [primary]), ...replicas])
  return { kind: 'sentinel', servers: await serversAt([...new Set(known)].sort().map(toPlace)), sentinels }
}

const optionsFor = ({ host, port }: HostAndPort, { credentials, tls }: Access): ClientOptions => ({
  host,
  port,
  ...credentials,
  ...(tls && { tls }),
})

async function surveyServer(where: string, options: ClientOptions): Promise<ServerSurvey> {
  try {
    return await ask(options, async client => {
      const startedMs = performance.now()
      await client.ping()
      const pingMs = performance.now() - startedMs
      const askedAt = Date.now()
      const [seconds, micros] = await client.time()
      const takenAt = (askedAt + Date.now()) / 2
      return {
        where,
        pingMs,
        clockAheadMs: Number(seconds) * 1000 + Number(micros) / 1000 - takenAt,
        info: readInfo(await client.info()),
        config: await readConfig(client),
      }
    })
  } catch (error) {
    const empty = { pingMs: 0, clockAheadMs: 0, info: readInfo(''), config: new Map() }
    return { where, error: (error as Error).message, ...empty }
  }
}

async function surveySentinel(where: string, options: ClientOptions, name: string): Promise<SentinelSurvey> {
  try {
    return await ask(options, async client => {
      const sentinel = async (...args: string[]): Promise<unknown> => await client.call('SENTINEL', ...args)
      const orError = async (question: Promise<unknown>): Promise<unknown> =>
        await question.catch((error: Error) => error)
      const address = (await sentinel('GET-MASTER-ADDR-BY-NAME', name)) as [string, string] | null
      if (address === null) throw new Error(`knows no primary with the name "${name}"`)
      const id = await orError(sentinel('MYID'))
      const quorum = await orError(sentinel('CKQUORUM', name))
      const replicas = (await sentinel('REPLICAS', name)) as unknown[]
      const others = (await sentinel('SENTINELS', name)) as unknown[]
      return {
        where,
        ...(typeof id === 'string' && { id }),
        primary: describeHost({ host: address[0], port: Number(address[1]) }),
        quorum: quorum instanceof Error ? quorum.message : String(quorum),
        replicas: replicas.map(toWhere),
        others: others.map(toWhere),
      }
    })
  } catch (error) {
    return { where, error: (error as Error).message, quorum: '', replicas: [], others: [] }
  }
}

/** All servers of a Cluster, as the first that answers knows them; those of the address when none does. */
async function clusterPlaces(servers: readonly HostAndPort[], access: Access): Promise<readonly HostAndPort[]> {
  for (const server of servers) {
    try {
      const text = await ask(
        optionsFor(server, access),
        async client => (await client.call('CLUSTER', 'NODES')) as string,
      )
      const lines = text.split('\n').filter(line => line !== '' && !/noaddr|handshake/.test(line))
      return lines.map(line => toPlace((line.split(' ')[1] ?? '').replace(/[@,].*$/, '')))
    } catch {
      // The next one may answer; that this one does not is found out when it is surveyed.
    }
  }
  return servers
}

const ask = async <T>(options: ClientOptions, question: (client: Redis) => Promise<T>): Promise<T> =>
  await askOnce({ ...options, connectTimeout: connectWithinMs }, answerWithinMs, question)

async function readConfig(client: Redis): Promise<Map<string, string>> {
  const values = new Map<string, string>()
  // One name a call: taking several at once came with Redis 7.
  for (const name of configNames) {
    const reply = await client.config('GET', name).catch(() => undefined)
    const value = (reply as string[] | undefined)?.[1]
    if (value === undefined) return values
    values.set(name, value)
  }
  return values
}

/** A server as Sentinel lists it. */
function toWhere(listed: unknown): string {
  const facts = toMap(listed)
  return describeHost({ host: facts.get('ip') ?? '', port: Number(facts.get('port')) })
}

function toPlace(where: string): HostAndPort {
  const colon = where.lastIndexOf(':')
  return { host: where.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(where.slice(colon + 1)) }
}
