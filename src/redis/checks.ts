/**
 * Looks over a Redis that the user brought for what would lose jobs or break later, and says in plain words what to do.
 * Managed services forbid CONFIG; what INFO does not tell is then named as unchecked.
 */
import type { Redis } from 'ioredis'

export interface RedisFinding {
  /** `error`: the node must not start on it. */
  readonly level: 'error' | 'warn'
  readonly message: string
}

interface Facts {
  readonly info: ReadonlyMap<string, string>
  /** Empty when CONFIG is forbidden. */
  readonly config: ReadonlyMap<string, string>
}

type Check = (facts: Facts) => RedisFinding | undefined

/** All findings, errors first; none when all is well. Rejects when Redis is away. */
export async function checkRedis(client: Redis): Promise<RedisFinding[]> {
  const info = parseInfo(await client.info())
  const config = await readConfig(client)
  const findings = checks.map(check => check({ info, config })).filter(finding => finding !== undefined)
  return findings.sort((a, b) => Number(a.level === 'warn') - Number(b.level === 'warn'))
}

const error = (message: string): RedisFinding => ({ level: 'error', message })
const warn = (message: string): RedisFinding => ({ level: 'warn', message })

const checkVersion: Check = ({ info }) => {
  const version = info.get('redis_version') ?? '0'
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major < 6 || (major === 6 && minor < 2))
    return error(`Redis ${version} is too old: Muster needs 6.2 or newer (7 is better).`)
  return major < 7
    ? warn(`Redis ${version} works, but 7.0 or newer is recommended: it keeps jobs in half of the memory.`)
    : undefined
}

const checkMode: Check = ({ info }) =>
  info.get('redis_mode') === 'cluster' || info.get('cluster_enabled') === '1'
    ? error('This Redis runs in cluster mode, which this version of Muster does not support. Use a single Redis.')
    : undefined

const checkRole: Check = ({ info }) => {
  if (info.get('role') !== 'slave') return undefined
  const primary = `${info.get('master_host') ?? '?'}:${info.get('master_port') ?? '?'}`
  return error(`This Redis is a replica and takes no writes. Point MUSTER_REDIS_URL at its primary (${primary}).`)
}

const checkEviction: Check = ({ info, config }) => {
  const policy = config.get('maxmemory-policy') ?? info.get('maxmemory_policy')
  if (policy === 'noeviction') return undefined
  if (policy === undefined)
    return warn('Whether Redis evicts keys could not be checked. Make sure that maxmemory-policy is noeviction.')
  return error(
    `maxmemory-policy is ${policy}: Redis would throw jobs away when its memory is full. ` +
      'Run "redis-cli CONFIG SET maxmemory-policy noeviction" and set it in redis.conf (or the parameter group) too.',
  )
}

const checkPersistence: Check = ({ info, config }) => {
  const keepsFile = config.get('appendonly') ?? (info.get('aof_enabled') === '1' ? 'yes' : 'no')
  if (keepsFile !== 'yes') {
    return warn(
      'Redis keeps no append-only file: when it restarts, every job and result since the last snapshot is lost. ' +
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

const checks: readonly Check[] = [checkVersion, checkMode, checkRole, checkEviction, checkPersistence]

function parseInfo(text: string): Map<string, string> {
  const lines = text.split(/\r?\n/).filter(line => line.includes(':') && !line.startsWith('#'))
  return new Map(lines.map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]))
}

const refusals = /^(NOPERM|ERR unknown command|ERR.*(not allowed|disabled|unsupported))/i

async function readConfig(client: Redis): Promise<Map<string, string>> {
  const values = new Map<string, string>()
  // One name a call: taking several at once came with Redis 7.
  for (const name of ['maxmemory-policy', 'appendonly', 'appendfsync']) {
    try {
      const [, value] = (await client.config('GET', name)) as string[]
      if (value !== undefined) values.set(name, value)
    } catch (reason) {
      if (reason instanceof Error && refusals.test(reason.message)) return values
      throw reason
    }
  }
  return values
}
