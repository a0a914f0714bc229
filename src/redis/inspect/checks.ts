/**
 * Looks over a Redis that the user brought for what would lose jobs or break later, and says in plain words what to do:
 * one server, the primary of Sentinels and these, or every master of a Cluster.
 * Managed services forbid CONFIG; what INFO does not tell is then named as unchecked.
 */
import type { Redis } from 'ioredis'
import { describeHost } from '../connect/address.ts'
import { isCluster, type RedisClient, sentinelsOf, serversOf } from '../connect/connection.ts'
import type { SentinelFacts } from '../connect/sentinels.ts'
import { type RedisInfo, readInfo } from './info.ts'

export interface RedisFinding {
  /** `error`: the node must not start on it. */
  readonly level: 'error' | 'warn'
  readonly message: string
}

type Topology = 'single' | 'sentinel' | 'cluster'

interface Facts {
  readonly topology: Topology
  readonly info: RedisInfo
  /** Empty when CONFIG is forbidden. */
  readonly config: ReadonlyMap<string, string>
}

type Check = (facts: Facts) => RedisFinding | undefined

/** All findings, errors first; none when all is well. Rejects when Redis is away. */
export async function checkRedis(client: RedisClient): Promise<RedisFinding[]> {
  const sentinels = sentinelsOf(client)
  const topology = isCluster(client) ? 'cluster' : sentinels === undefined ? 'single' : 'sentinel'
  const findings = topology === 'cluster' ? await checkCluster(client) : await checkServer(client as Redis, topology)
  if (sentinels !== undefined) findings.push(...checkSentinels(await sentinels.facts(), sentinels.addressCount))
  return findings.sort((a, b) => Number(a.level === 'warn') - Number(b.level === 'warn'))
}

async function checkServer(server: Redis, topology: Topology): Promise<RedisFinding[]> {
  const info = readInfo(await server.info())
  const config = await readConfig(server)
  return checks.map(check => check({ topology, info, config })).filter(finding => finding !== undefined)
}

/** What is wrong with several masters is said once, and of which. */
async function checkCluster(client: RedisClient): Promise<RedisFinding[]> {
  const found = new Map<string, { finding: RedisFinding; servers: string[] }>()
  for (const server of serversOf(client)) {
    const { host = '', port = 0 } = server.options
    for (const finding of await checkServer(server, 'cluster')) {
      const entry = found.get(finding.message) ?? { finding, servers: [] }
      entry.servers.push(describeHost({ host, port }))
      found.set(finding.message, entry)
    }
  }
  return [...found.values()].map(({ finding: { level, message }, servers }) => ({
    level,
    message: `${servers.join(', ')}: ${message}`,
  }))
}

const error = (message: string): RedisFinding => ({ level: 'error', message })
const warn = (message: string): RedisFinding => ({ level: 'warn', message })

const checkVersion: Check = ({ info }) => {
  const { version } = info
  if (version === '?') return warn('The version of Redis could not be checked. Make sure that it is 6.2 or newer.')
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major < 6 || (major === 6 && minor < 2))
    return error(`Redis ${version} is too old: Muster needs 6.2 or newer (7 is better).`)
  return major < 7
    ? warn(`Redis ${version} works, but 7.0 or newer is recommended: it keeps jobs in half of the memory.`)
    : undefined
}

const checkMode: Check = ({ topology, info }) => {
  if (!info.isCluster || topology === 'cluster') return undefined
  return error(
    topology === 'single'
      ? 'This Redis runs in cluster mode. Write MUSTER_REDIS_URL as redis+cluster://host:6379 (or rediss+cluster://).'
      : 'This Redis runs in cluster mode, which Sentinels cannot watch. Use redis+cluster:// in MUSTER_REDIS_URL.',
  )
}

const checkRole: Check = ({ topology, info }) => {
  if (topology !== 'single' || info.follows === undefined) return undefined
  const primary = `${info.follows.address}:${info.follows.port}`
  return error(
    `This Redis is a replica and takes no writes. Point MUSTER_REDIS_URL at its primary (${primary}), or at the ` +
      'Sentinels that watch it (redis+sentinel://a,b,c/primary-name).',
  )
}

const checkReplicas: Check = ({ topology, info }) => {
  if (topology === 'single' || info.replicaCount > 0) return undefined
  return warn(
    topology === 'sentinel'
      ? 'No replica is connected: if this machine is lost, so are the jobs. With min-replicas-to-write 1, as it should be, nothing is accepted until one is.'
      : 'No replica is connected: if this machine is lost, so are the jobs of its queues. Give each master a replica.',
  )
}

const checkMinReplicas: Check = ({ topology, config }) => {
  if (topology !== 'sentinel' || config.get('min-replicas-to-write') !== '0') return undefined
  return warn(
    'min-replicas-to-write is 0: a primary that is cut off from the others goes on taking jobs that are lost later. ' +
      'Run "redis-cli CONFIG SET min-replicas-to-write 1" on every server, and set it in redis.conf too.',
  )
}

const checkEviction: Check = ({ info, config }) => {
  const policy = config.get('maxmemory-policy') ?? info.evictionPolicy
  if (policy === 'noeviction') return undefined
  if (policy === undefined)
    return warn('Whether Redis evicts keys could not be checked. Make sure that maxmemory-policy is noeviction.')
  return error(
    `maxmemory-policy is ${policy}: Redis would throw jobs away when its memory is full. ` +
      'Run "redis-cli CONFIG SET maxmemory-policy noeviction" and set it in redis.conf (or the parameter group) too.',
  )
}

const checkPersistence: Check = ({ topology, info, config }) => {
  const keepsFile = config.get('appendonly') ?? (info.keepsAppendOnlyFile ? 'yes' : 'no')
  if (keepsFile !== 'yes') {
    return warn(
      'Redis keeps no append-only file: when it restarts, every job and result since the last snapshot is lost' +
        (topology === 'sentinel' ? ', on all servers when the primary is back before a failover. ' : '. ') +
        'Run "redis-cli CONFIG SET appendonly yes" and set it in redis.conf too.',
    )
  }
  const sync = config.get('appendfsync')
  if (sync === 'no') {
    return warn(
      'appendfsync is no: a power loss takes whatever the system had not yet written, often 30 s of jobs. ' +
        'Run "redis-cli CONFIG SET appendfsync everysec" (or always) and set it in redis.conf too.',
    )
  }
  return sync === undefined
    ? warn('CONFIG is forbidden here, so appendfsync could not be checked. It should be everysec or always.')
    : undefined
}

const checks: readonly Check[] = [
  checkVersion,
  checkMode,
  checkRole,
  checkEviction,
  checkPersistence,
  checkReplicas,
  checkMinReplicas,
]

/** @param addressCount how many MUSTER_REDIS_URL names */
function checkSentinels({ knownCount, answeredCount }: SentinelFacts, addressCount: number): RedisFinding[] {
  const findings: RedisFinding[] = []
  if (knownCount < 3)
    findings.push(
      warn(
        `${knownCount === 1 ? 'One Sentinel watches' : `${knownCount} Sentinels watch`} this primary: it takes three ` +
          'on three machines for the others to agree when one machine is lost.',
      ),
    )
  if (answeredCount < addressCount)
    findings.push(warn(`${addressCount - answeredCount} of the Sentinels in MUSTER_REDIS_URL did not answer.`))
  if (addressCount < knownCount)
    findings.push(
      warn(
        `MUSTER_REDIS_URL names ${addressCount} of ${knownCount} Sentinels: name all of them, or the node is blind when that one is lost.`,
      ),
    )
  return findings
}

const refusals = /^(NOPERM|ERR unknown command|ERR.*(not allowed|disabled|unsupported))/i

async function readConfig(server: Redis): Promise<Map<string, string>> {
  const values = new Map<string, string>()
  // One name a call: taking several at once came with Redis 7.
  for (const name of ['maxmemory-policy', 'appendonly', 'appendfsync', 'min-replicas-to-write']) {
    try {
      const [, value] = (await server.config('GET', name)) as string[]
      if (value !== undefined) values.set(name, value)
    } catch (reason) {
      if (reason instanceof Error && refusals.test(reason.message)) return values
      throw reason
    }
  }
  return values
}
