/** Which Redis a backup is taken from, and which one a restore fills: what the command line and the settings name. */
import { tmpdir } from 'node:os'
import { StartupError } from '../errors.ts'
import { parseRedisUrl, type RedisTarget } from '../redis/connect/address.ts'
import { embeddedFiles } from '../redis-server/embedded-config.ts'
import { readStatus, sourceOfFolder } from '../redis-server/ha/group-status.ts'
import { type Host, readServerConfig, serverFiles, tlsName } from '../redis-server/ha/replication-group.ts'

export type Place =
  /** The three servers, by the folder of one host. */
  | { readonly kind: 'group'; readonly dir: string }
  | { readonly kind: 'url'; readonly target: RedisTarget & { readonly url: string } }
  /** The Redis that a node starts for itself. */
  | { readonly kind: 'embedded'; readonly dataDir: string }

export interface PlaceOptions {
  readonly dir: string | undefined
  readonly redisUrl: string
  readonly redisCaFile: string
  readonly redisTlsName: string
  readonly dataDir: string
}

export function placeOf({ dir, redisUrl, redisCaFile, redisTlsName, dataDir }: PlaceOptions): Place {
  if (dir !== undefined) return { kind: 'group', dir }
  if (redisUrl === '') return { kind: 'embedded', dataDir }
  return { kind: 'url', target: { url: redisUrl, caFile: redisCaFile, tlsName: redisTlsName } }
}

/**
 * The one server to take a snapshot of. Of three servers a replica that is in sync, that of this host before another,
 * since a snapshot costs a server memory; the primary when there is no such.
 * @throws StartupError
 */
export async function serverToAsk(place: Place): Promise<RedisTarget> {
  if (place.kind === 'embedded') return { socketPath: embeddedFiles(place.dataDir, tmpdir()).socket }
  if (place.kind === 'url') {
    if (parseRedisUrl(place.target.url).kind !== 'single')
      throw new StartupError(
        'A snapshot is that of one server: on a host of the replication group, name its folder (--dir).',
      )
    return place.target
  }
  const config = await readServerConfig(place.dir)
  const { primary, hosts } = await readStatus(await sourceOfFolder(place.dir))
  const inSync = hosts.filter(({ isInSync }) => isInSync).map(({ host }) => host)
  const name = inSync.find(host => host === config.host) ?? inSync[0] ?? primary
  const host = config.hosts.find(one => one.name === name)
  if (host === undefined) throw new StartupError('No Redis server can be asked: see "muster redis status".')
  return await asOperator(place.dir, ({ address }) => `${address}:${config.port}`, [host], '')
}

/**
 * What to write to: of three servers, whichever is primary, and only while a second server takes part. @throws
 * StartupError
 */
export async function placeToFill(place: Place): Promise<RedisTarget> {
  if (place.kind === 'url') return place.target
  if (place.kind === 'embedded') return { socketPath: embeddedFiles(place.dataDir, tmpdir()).socket }
  const config = await readServerConfig(place.dir)
  const { canFailOver } = await readStatus(await sourceOfFolder(place.dir))
  if (!canFailOver)
    throw new StartupError('The Redis servers are not well: start all of them, and wait for "muster redis status".')
  return await asOperator(
    place.dir,
    ({ address }) => `${address}:${config.sentinelPort}`,
    config.hosts,
    `/${config.name}`,
  )
}

async function asOperator(
  dir: string,
  spell: (host: Host) => string,
  hosts: readonly Host[],
  path: string,
): Promise<RedisTarget> {
  const { tls, password } = await readServerConfig(dir)
  const scheme = `redis${tls ? 's' : ''}${path === '' ? '' : '+sentinel'}`
  const url = `${scheme}://operator:${encodeURIComponent(password)}@${hosts.map(spell).join(',')}${path}`
  return { url, ...(tls && { caFile: serverFiles(dir).authority, tlsName }) }
}
