/** Where Redis is and how to reach it: what a caller names, read into one of four kinds. */
import { readFile } from 'node:fs/promises'
import type { RedisOptions } from 'ioredis'
import { StartupError } from '../../errors.ts'
import { type HostAndPort, parseRedisUrl, type RedisUrlAddress } from '../../settings/redis-url.ts'
import type { Settings } from '../../settings/settings.ts'

export type {
  ClusterAddress,
  Credentials,
  HostAndPort,
  SentinelAddress,
  SingleAddress,
} from '../../settings/redis-url.ts'
export { parseRedisUrl }

export interface SocketAddress {
  readonly kind: 'socket'
  readonly path: string
}

export type RedisAddress = SocketAddress | RedisUrlAddress

/** What a caller names. `caFile` and `tlsName` count with TLS only; empty is unset. */
export type RedisTarget =
  | { readonly socketPath: string }
  | { readonly url: string; readonly caFile?: string; readonly tlsName?: string }

/** What ioredis takes, as its constructor wants it: `replyMapping`, which Muster never sets, is there or is not. */
export type ClientOptions = Omit<RedisOptions, 'replyMapping'>

/** How TLS is done; the names are those of node:tls. */
export interface TlsOptions {
  readonly ca?: string
  readonly servername?: string
  readonly minVersion: 'TLSv1.2'
}

/** The Redis that the settings name, undefined when the node is to start its own. */
export const targetOf = ({ redisUrl, redisCaFile, redisTlsName }: Settings): RedisTarget | undefined =>
  redisUrl === '' ? undefined : { url: redisUrl, caFile: redisCaFile, tlsName: redisTlsName }

/** @throws StartupError when the URL cannot be read; no part of it is repeated */
export function addressOf(target: RedisTarget): RedisAddress {
  if ('socketPath' in target) return { kind: 'socket', path: target.socketPath }
  try {
    return parseRedisUrl(target.url)
  } catch (error) {
    throw new StartupError(`MUSTER_REDIS_URL ${(error as Error).message}.`)
  }
}

/**
 * How to do TLS with this Redis; undefined without TLS.
 * @throws StartupError when the file of the authority cannot be read
 */
export async function tlsOptionsOf(target: RedisTarget): Promise<TlsOptions | undefined> {
  const address = addressOf(target)
  if (address.kind === 'socket' || !address.tls || 'socketPath' in target) return undefined
  const { caFile = '', tlsName = '' } = target
  return {
    minVersion: 'TLSv1.2',
    ...(caFile !== '' && { ca: await readAuthority(caFile) }),
    // The name is sent to the server, and it is what the certificate must bear.
    ...(tlsName !== '' && { servername: tlsName }),
  }
}

async function readAuthority(file: string): Promise<string> {
  const pem = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new StartupError(`MUSTER_REDIS_CA_FILE is ${file}, which cannot be read (${error.code}).`, { cause: error })
  })
  // Anything else would be taken for an empty list of authorities, and blamed on the certificate of Redis.
  if (!pem.includes('-----BEGIN CERTIFICATE-----'))
    throw new StartupError(`MUSTER_REDIS_CA_FILE is ${file}, which holds no certificate in PEM form.`)
  return pem
}

export const describeHost = ({ host, port }: HostAndPort): string =>
  `${host.includes(':') ? `[${host}]` : host}:${port}`

/** The address as it may be logged: without password. */
export function describeAddress(address: RedisAddress): string {
  if (address.kind === 'socket') return address.path
  const user = address.username === undefined ? '' : `${encodeURIComponent(address.username)}:***@`
  const scheme = address.tls ? 'rediss' : 'redis'
  const list = (servers: readonly HostAndPort[]): string => servers.map(describeHost).join(',')
  if (address.kind === 'cluster') return `${scheme}+cluster://${user}${list(address.servers)}`
  const db = address.db === 0 ? '' : `/${address.db}`
  return address.kind === 'sentinel'
    ? `${scheme}+sentinel://${user}${list(address.sentinels)}/${address.name}${db}`
    : `${scheme}://${user}${describeHost(address)}${db}`
}
