/**
 * What MUSTER_REDIS_URL may say, read into an address. A parser of our own, since a URL in the usual sense has one
 * host:
 *
 *   redis[s]://[user:password@]host[:6379][/db]
 *   redis[s]+sentinel://[user:password@]a[:26379],b,c/primary-name[/db][?sentinelUsername=…&sentinelPassword=…]
 *   redis[s]+cluster://[user:password@]a[:6379],b,c
 *
 * No fault repeats any part of the text: with a slip of the pen a password can stand where a host should.
 */

export interface HostAndPort {
  readonly host: string
  readonly port: number
}

export interface Credentials {
  readonly username?: string
  readonly password?: string
}

/** One Redis by TCP. */
export interface SingleAddress extends HostAndPort, Credentials {
  readonly kind: 'single'
  readonly tls: boolean
  readonly db: number
}

/** The primary that Sentinels know under a name. */
export interface SentinelAddress extends Credentials {
  readonly kind: 'sentinel'
  /** For Redis and the Sentinels alike. */
  readonly tls: boolean
  readonly sentinels: readonly HostAndPort[]
  readonly name: string
  readonly db: number
  /** For the Sentinels themselves. */
  readonly sentinelCredentials: Credentials
}

export interface ClusterAddress extends Credentials {
  readonly kind: 'cluster'
  readonly tls: boolean
  /** Some of its servers; the others are found through them. */
  readonly servers: readonly HostAndPort[]
}

export type RedisUrlAddress = SingleAddress | SentinelAddress | ClusterAddress

interface Parts {
  readonly tls: boolean
  readonly credentials: Credentials
  readonly hosts: string
  /** Between slashes, decoded. */
  readonly path: readonly string[]
  readonly query: URLSearchParams
}

const example = 'redis://host:6379, redis+sentinel://a,b,c/primary-name or redis+cluster://a,b,c (rediss for TLS)'

/** @throws Error whose message completes "MUSTER_REDIS_URL …" and holds no part of the text */
export function parseRedisUrl(text: string): RedisUrlAddress {
  const match = /^(rediss?)(?:\+(sentinel|cluster))?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i.exec(text)
  if (match === null) throw new Error(`must look like ${example}`)
  const [, scheme = '', kind, authority = '', path = '', query = ''] = match
  const at = authority.lastIndexOf('@')
  const parts: Parts = {
    tls: scheme.toLowerCase() === 'rediss',
    credentials: at === -1 ? {} : parseCredentials(authority.slice(0, at)),
    hosts: authority.slice(at + 1),
    path: path === '' ? [] : path.replace(/\/$/, '').split('/').map(decode),
    query: new URLSearchParams(query),
  }
  if (kind?.toLowerCase() === 'sentinel') return sentinelAddress(parts)
  const [parameter] = parts.query.keys()
  if (parameter !== undefined) throw new Error('takes parameters after a "?" with redis+sentinel:// only')
  return kind === undefined ? singleAddress(parts) : clusterAddress(parts)
}

function singleAddress({ tls, credentials, hosts, path }: Parts): SingleAddress {
  const [server, ...others] = parseHosts(hosts, 6379)
  if (server === undefined || others.length > 0)
    throw new Error('names several hosts: that takes redis+sentinel://a,b,c/primary-name or redis+cluster://a,b,c')
  if (path.length > 1) throw new Error('must end after the number of the database, as in redis://host:6379/0')
  return { kind: 'single', tls, ...server, db: parseDb(path[0]), ...credentials }
}

function sentinelAddress({ tls, credentials, hosts, path, query }: Parts): SentinelAddress {
  const sentinels = parseHosts(hosts, 26_379)
  const [name = '', db, ...rest] = path
  if (name === '') throw new Error('must name the primary as the Sentinels do: redis+sentinel://a,b,c/primary-name')
  if (!/^[A-Za-z0-9._-]+$/.test(name)) throw new Error('must name the primary with letters, digits, ".", "-" and "_"')
  if (rest.length > 0)
    throw new Error('must end after the number of the database: redis+sentinel://a,b,c/primary-name/0')
  const known = ['sentinelUsername', 'sentinelPassword']
  if ([...query.keys()].some(key => !known.includes(key)))
    throw new Error(`takes only the parameters ${known.join(' and ')}`)
  return {
    kind: 'sentinel',
    tls,
    sentinels,
    name,
    db: parseDb(db),
    ...credentials,
    sentinelCredentials: query.size === 0 ? credentials : sentinelCredentials(query),
  }
}

/**
 * Given at all, they stand alone: the user of the one is seldom that of the other. An empty password: none is asked.
 */
function sentinelCredentials(query: URLSearchParams): Credentials {
  const username = query.get('sentinelUsername') ?? ''
  const password = query.get('sentinelPassword') ?? ''
  if (password === '' && username !== '') throw new Error('names a sentinelUsername, but no sentinelPassword')
  return { ...(username !== '' && { username }), ...(password !== '' && { password }) }
}

function clusterAddress({ tls, credentials, hosts, path }: Parts): ClusterAddress {
  if (path.length > 0 && !(path.length === 1 && path[0] === '0'))
    throw new Error('names a database, but a Redis Cluster has only database 0: leave it away')
  return { kind: 'cluster', tls, servers: parseHosts(hosts, 6379), ...credentials }
}

function parseCredentials(text: string): Credentials {
  const colon = text.indexOf(':')
  const username = decode(colon === -1 ? text : text.slice(0, colon))
  const password = colon === -1 ? '' : decode(text.slice(colon + 1))
  return { ...(username !== '' && { username }), ...(password !== '' && { password }) }
}

function parseHosts(text: string, defaultPort: number): HostAndPort[] {
  if (text === '') throw new Error(`names no host; it must look like ${example}`)
  return text.split(',').map(item => parseHost(item.trim(), defaultPort))
}

function parseHost(text: string, defaultPort: number): HostAndPort {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3] ?? defaultPort)
  if (host === undefined || port < 1 || port > 65_535)
    throw new Error(
      'has a host that cannot be read: it takes host or host:port, [::1]:port for IPv6, and a comma between two; ' +
        'in a user or password write @ : / ? # % as %40 %3A %2F %3F %23 %25',
    )
  return { host, port }
}

function parseDb(text: string | undefined): number {
  if (text === undefined || text === '') return 0
  if (!/^\d{1,4}$/.test(text)) throw new Error('must name the database by its number, as in redis://host:6379/0')
  return Number(text)
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Error('has a "%" that encodes nothing: write it as %25')
  }
}

/** URLs as they may be shown: who logs in with them, and what is signed in their query, stays out. */

/**
 * `https://user:pass@host/path?X-Amz-Signature=…` → `https://********@host/path?********`; any number, separated by
 * commas.
 */
export const maskUrls = (text: string): string =>
  text
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^/?#,\s]*@/gi, '$1********@')
    .replace(/([a-z][a-z0-9+.-]*:\/\/[^?#,\s]*\?)[^#,\s"]+/gi, '$1********')
