/** Who is primary, who follows how closely, and whether a failover could happen now. */
import { StartupError } from '../../errors.ts'
import { isInSync, type RedisInfo } from '../../redis/inspect/info.ts'
import { parseRedisUrl } from '../../settings/redis-url.ts'
import { askRedisInfo, askSentinelInfo, openTargets, type SentinelInfo, type Target } from './probe.ts'
import { majorityOf, readServerConfig } from './replication-group.ts'

const answerMs = 1500

/** Where to ask. */
export interface StatusSource {
  /** The name of the group in Sentinel. */
  readonly name: string
  readonly sentinels: readonly Named[]
  /** Unset: those that the Sentinels know. */
  readonly redises?: readonly Named[]
  /** How to get into a Redis that the Sentinels know. */
  readonly redisAccess: Omit<Target, 'address' | 'port'>
}

interface Named {
  readonly host: string
  readonly target: Target
}

export interface HostStatus {
  readonly host: string
  readonly redis: 'primary' | 'replica' | 'down'
  /** Bytes of the stream of writes that a replica has not confirmed. */
  readonly behindBytes: number | undefined
  /** Since a replica was last heard of by the primary. */
  readonly lagMs: number | undefined
  readonly isLinked: boolean
  /** A replica that is linked and that its primary heard of within `min-replicas-max-lag`. */
  readonly isInSync: boolean
  readonly keyCount: number | undefined
  readonly version: string | undefined
  /** Undefined: it does not answer. */
  readonly sentinelNames: string | undefined
}

export interface GroupStatus {
  readonly primary: string | undefined
  readonly canFailOver: boolean
  /** What stands against a failover, or is not as it should be. */
  readonly faults: readonly string[]
  readonly hosts: readonly HostStatus[]
}

/** The hosts of a folder that `muster redis init` wrote. @throws StartupError when it is none */
export async function sourceOfFolder(folder: string): Promise<StatusSource> {
  const config = await readServerConfig(folder)
  const targets = await openTargets(folder, config)
  const { address: _address, port: _port, ...redisAccess } = targets.redis(config.hosts[0] ?? { name: '', address: '' })
  return {
    name: config.name,
    sentinels: config.hosts.map(host => ({ host: host.name, target: targets.sentinel(host) })),
    redises: config.hosts.map(host => ({ host: host.name, target: targets.redis(host) })),
    redisAccess,
  }
}

/** The Sentinels of a MUSTER_REDIS_URL. @throws StartupError when it names none */
export function sourceOfUrl(url: string, tls: { readonly ca?: string; readonly name?: string }): StatusSource {
  let address: ReturnType<typeof parseRedisUrl>
  try {
    address = parseRedisUrl(url)
  } catch (error) {
    throw new StartupError(`The URL ${(error as Error).message}.`)
  }
  if (address.kind !== 'sentinel')
    throw new StartupError('The URL names no Sentinels: it takes redis+sentinel://… or rediss+sentinel://…')
  const { sentinels, sentinelCredentials, username, password } = address
  const access = address.tls ? { tls } : {}
  return {
    name: address.name,
    sentinels: sentinels.map(({ host, port }) => ({
      host,
      target: { address: host, port, ...sentinelCredentials, ...access },
    })),
    redisAccess: {
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      ...access,
    },
  }
}

/** Asks all at once; takes some 3 s at most and never throws. */
export async function readStatus(source: StatusSource): Promise<GroupStatus> {
  const sentinels = await Promise.all(
    source.sentinels.map(async ({ host, target }) => ({
      host,
      address: target.address,
      info: await askSentinelInfo(target, source.name, answerMs).catch(() => undefined),
    })),
  )
  const known = source.redises ?? knownRedises(sentinels, source.redisAccess)
  const redises = await Promise.all(
    known.map(async ({ host, target }) => ({
      host,
      address: target.address,
      info: await askRedisInfo(target, answerMs).catch(() => undefined),
    })),
  )
  return evaluate(sentinels, redises)
}

interface Heard<T> {
  readonly host: string
  readonly address: string
  readonly info: T | undefined
}

function knownRedises(sentinels: readonly Heard<SentinelInfo>[], access: StatusSource['redisAccess']): Named[] {
  const ports = new Map<string, number>()
  for (const { info } of sentinels) {
    if (info === undefined) continue
    for (const { address, port } of [{ address: info.primary, port: info.port }, ...info.replicas])
      if (address !== '') ports.set(address, port)
  }
  return [...ports].map(([address, port]) => ({ host: address, target: { address, port, ...access } }))
}

/** Pure: what the answers mean. */
export function evaluate(sentinels: readonly Heard<SentinelInfo>[], redises: readonly Heard<RedisInfo>[]): GroupStatus {
  const faults: string[] = []
  const nameOf = (address: string): string =>
    [...redises, ...sentinels].find(other => other.address === address)?.host ?? address
  const answers = sentinels.flatMap(({ host, info }) => (info === undefined ? [] : [{ host, info }]))
  const address = answers
    .map(({ info }) => info.primary)
    .find(one => answers.filter(({ info }) => info.primary === one).length >= majorityOf(sentinels.length))
  const primary = redises.find(redis => redis.address === address)

  for (const { host, info } of sentinels) {
    if (info === undefined) faults.push(`the Sentinel of ${host} does not answer`)
    else if (info.quorumFault !== undefined) faults.push(`the Sentinel of ${host}: ${info.quorumFault}`)
    else if (info.primary !== address) faults.push(`the Sentinel of ${host} names ${nameOf(info.primary)} as primary`)
  }
  for (const { host, info } of redises) if (info === undefined) faults.push(`the Redis of ${host} does not answer`)
  if (address === undefined) faults.push('no majority of the Sentinels agrees on a primary')
  else if (primary?.info?.role !== 'primary') faults.push(`${nameOf(address)} is named, but does not serve as primary`)

  const hosts = [...new Set([...redises, ...sentinels].map(({ host }) => host))].map(host => {
    const redis = redises.find(other => other.host === host)
    const seen = primary?.info?.replicas.find(replica => replica.address === redis?.address)
    const heard = answers.find(other => other.host === host)
    return {
      host,
      redis: redis?.info?.role ?? 'down',
      behindBytes: seen && primary?.info ? Math.max(0, primary.info.offset - seen.offset) : undefined,
      lagMs: seen?.lagMs,
      isLinked: seen?.isOnline === true && redis?.info?.isLinked === true,
      isInSync: seen !== undefined && isInSync(seen) && redis?.info?.isLinked === true,
      keyCount: redis?.info?.keyCount,
      version: redis?.info?.version,
      sentinelNames: heard && nameOf(heard.info.primary),
    } satisfies HostStatus
  })
  const isFit = ({ redis, isInSync, host }: HostStatus): boolean => {
    const own = redises.find(other => other.host === host)?.address
    const fitFor = answers.filter(({ info }) => info.replicas.some(other => other.address === own && other.isFit))
    // The one that leads a failover picks among those that it knows, and any one may be lost with the primary.
    const isKnown = fitFor.length >= majorityOf(sentinels.length)
    return redis === 'replica' && isInSync && isKnown
  }
  for (const host of hosts) {
    if (host.redis !== 'replica' || isFit(host)) continue
    const why = host.isInSync
      ? 'most Sentinels have not seen it in sync yet (they look every 10 s)'
      : 'it is not in sync'
    faults.push(`${host.host} could not take over: ${why}`)
  }
  const quorate = answers.filter(({ info }) => info.quorumFault === undefined)
  const canFailOver =
    primary?.info?.role === 'primary' && quorate.length >= majorityOf(sentinels.length) && hosts.some(isFit)
  return { primary: address === undefined ? undefined : nameOf(address), canFailOver, faults, hosts }
}

/** A small table for people. */
export function statusTable({ hosts, faults, canFailOver, primary }: GroupStatus): string[] {
  const rows = [
    ['host', 'redis', 'behind', 'heard', 'keys', 'version', 'its Sentinel names'],
    ...hosts.map(host => [
      host.host,
      host.redis === 'replica' && !host.isLinked ? 'replica (not linked)' : host.redis,
      host.behindBytes === undefined ? '-' : `${host.behindBytes} B`,
      host.lagMs === undefined ? '-' : `${host.lagMs / 1000} s ago`,
      String(host.keyCount ?? '-'),
      host.version ?? '-',
      host.sentinelNames ?? '(no answer)',
    ]),
  ]
  const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map(row => row[at]?.length ?? 0)))
  return [
    ...rows.map(row =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join('  ')
        .trimEnd(),
    ),
    '',
    ...faults.map(fault => `! ${fault}`),
    canFailOver
      ? `${primary} is primary, and another host could take over now.`
      : 'NO FAILOVER COULD HAPPEN NOW: losing the primary would stop the queue.',
  ]
}
