/** The findings about the Redis servers, from what they report. Pure. */
import { isInSync, maxLagMs } from '../redis/inspect/info.ts'
import type { RedisSurvey, ServerSurvey } from '../redis/inspect/survey.ts'
import { type Fault, type Finding, fail, ok, skipped, sum, warn } from './finding.ts'

/** With Sentinels: node A, node B and the witness. */
const desiredCount = 3

export function checkRedisServers(survey: RedisSurvey): Finding[] {
  const reached = survey.servers.filter(({ error }) => error === undefined)
  const first = checkReached(survey)
  if (reached.length === 0) return [first]
  const each = { ...survey, servers: reached }
  return [first, ...checks.map(check => check(each))]
}

type Check = (survey: RedisSurvey) => Finding

function checkReached({ kind, servers }: RedisSurvey): Finding {
  const faults = servers.flatMap(({ where, error }): Fault[] =>
    error === undefined ? [] : [{ isGrave: true, text: `${where} does not answer: ${error}` }],
  )
  if (servers.length === 0) faults.push({ isGrave: true, text: 'no Redis was found' })
  else if (kind === 'sentinel' && servers.length < desiredCount)
    faults.push({ isGrave: true, text: `the Sentinels know ${servers.length} of ${desiredCount} servers` })
  return sum(
    'redis-servers',
    faults,
    kind === 'sentinel'
      ? 'Start it again ("muster redis run" on its host), and see that its port can be reached. With one server less, the next loss stops the queue.'
      : 'Start Redis, and see that its port can be reached from here and that user and password are right.',
    `${servers.map(({ where }) => where).join(', ')}`,
  )
}

const checkPrimary: Check = ({ kind, servers }) => {
  const name = 'redis-primary'
  const primaries = servers.filter(({ info }) => info.role === 'primary').map(({ where }) => where)
  if (kind === 'cluster') {
    const broken = servers.filter(({ info }) => !info.isCluster).map(({ where }) => where)
    return broken.length > 0
      ? fail(name, `${broken.join(', ')} is no part of a Cluster`, 'Point MUSTER_REDIS_URL at servers of one Cluster.')
      : ok(name, `${primaries.length} masters: ${primaries.join(', ')}`)
  }
  if (primaries.length === 1) return ok(name, primaries[0] as string)
  if (primaries.length === 0)
    return fail(
      name,
      'no server is the primary',
      kind === 'sentinel'
        ? 'A failover may be under way: look again in 10 s. If it stays so, see the logs of the Sentinels ("muster redis status").'
        : 'Point MUSTER_REDIS_URL at the primary, not at a replica.',
    )
  return fail(
    name,
    `${primaries.length} servers say that they are: ${primaries.join(', ')}`,
    'The Sentinels make the wrong one a replica within some seconds. If it stays so, that host does not reach them.',
  )
}

const checkReplicas: Check = ({ kind, servers }) => {
  const name = 'redis-replicas'
  const replicas = servers.filter(({ info }) => info.role === 'replica')
  if (kind === 'socket') return skipped(name, 'one server: the Redis of this node')
  if (replicas.length === 0)
    return kind === 'single'
      ? skipped(name, 'one server')
      : fail(name, 'no replica answers', 'Start the other servers: if the primary is lost now, so are its jobs.')
  const faults: Fault[] = []
  for (const { where, info } of replicas) {
    if (!info.isLinked) faults.push({ isGrave: true, text: `${where} is not connected to its primary` })
    else if (info.isSyncing) faults.push({ isGrave: false, text: `${where} is being filled` })
    if (info.silentMs > maxLagMs)
      faults.push({ isGrave: false, text: `${where} heard nothing of its primary for ${info.silentMs / 1000} s` })
  }
  for (const { where, info } of servers.filter(({ info }) => info.role === 'primary'))
    for (const replica of info.replicas)
      if (!isInSync(replica))
        faults.push({ isGrave: false, text: `the replica ${replica.address} of ${where} is not in sync` })
  return sum(
    name,
    faults,
    'See its log: network, password of the user "replica", certificate, or a disk that is too slow.',
    `${replicas.length} in sync`,
  )
}

/** The same setting on every server: any of them may be the primary next. */
function onEach(
  name: string,
  servers: readonly ServerSurvey[],
  evaluate: (server: ServerSurvey) => Fault | undefined,
  action: string,
  whenWell: string,
): Finding {
  const faults = servers.flatMap(server => {
    const fault = evaluate(server)
    return fault === undefined ? [] : [{ ...fault, text: `${server.where}: ${fault.text}` }]
  })
  return sum(name, faults, action, whenWell)
}

const checkEviction: Check = ({ servers }) =>
  onEach(
    'redis-eviction',
    servers,
    ({ config, info }) => {
      const policy = config.get('maxmemory-policy') ?? info.evictionPolicy
      if (policy === 'noeviction') return undefined
      return policy === undefined
        ? { isGrave: false, text: 'cannot be seen' }
        : { isGrave: true, text: `maxmemory-policy is ${policy}: jobs are thrown away when the memory is full` }
    },
    'Run "CONFIG SET maxmemory-policy noeviction" there, and set it in redis.conf (or the parameter group) too.',
    'noeviction',
  )

const checkAppendOnly: Check = ({ kind, servers }) => {
  const isAlone = kind === 'single' || kind === 'socket'
  return onEach(
    'redis-append-only',
    servers,
    ({ config, info }) => {
      const keeps = config.get('appendonly') ?? (info.keepsAppendOnlyFile ? 'yes' : 'no')
      if (keeps !== 'yes')
        return {
          isGrave: true,
          text: `appendonly is ${keeps}: a restart loses jobs${isAlone ? '' : ', on all servers if it was the primary'}`,
        }
      const sync = config.get('appendfsync')
      if (sync === 'no') return { isGrave: true, text: 'appendfsync is no' }
      return isAlone && sync === 'everysec'
        ? { isGrave: false, text: 'appendfsync is everysec: a power loss takes up to 1 s of acknowledged jobs' }
        : undefined
    },
    `Run "CONFIG SET appendonly yes" and "CONFIG SET appendfsync ${isAlone ? 'always' : 'everysec'}" there, and set both in redis.conf too.`,
    'on',
  )
}

const checkMinReplicas: Check = ({ kind, servers }) => {
  if (kind !== 'sentinel') return skipped('redis-min-replicas', 'only with Sentinels')
  return onEach(
    'redis-min-replicas',
    servers,
    ({ config }) => {
      const count = config.get('min-replicas-to-write')
      if (count === undefined) return { isGrave: false, text: 'cannot be seen' }
      return Number(count) >= 1
        ? undefined
        : { isGrave: true, text: 'min-replicas-to-write is 0: a primary that is cut off goes on taking jobs' }
    },
    'Run "CONFIG SET min-replicas-to-write 1" there, and set it in redis.conf too.',
    'a primary without a replica takes nothing',
  )
}

const checkMemory: Check = ({ servers }) =>
  onEach(
    'redis-memory',
    servers,
    ({ info }) => {
      const { used, limit, system } = info.memory
      const most = limit || system
      const share = most === 0 ? 0 : used / most
      const percent = Math.round(share * 100)
      return share > 0.8 ? { isGrave: share > 0.95, text: `${percent} % of its memory are used` } : undefined
    },
    'Let results be collected, let them expire sooner (MUSTER_RESULT_TTL_MS, MUSTER_UNCOLLECTED_TTL_MS), or give Redis more memory.',
    'enough is free',
  )

const checkVersion: Check = ({ servers }) => {
  const versions = servers.map(({ where, info }) => ({ where, version: info.version }))
  const list = versions.map(({ where, version }) => `${where} ${version}`).join(', ')
  const isOld = ({ version }: { version: string }): boolean => {
    const [major = 0, minor = 0] = version.split('.').map(Number)
    return major < 6 || (major === 6 && minor < 2)
  }
  if (versions.some(isOld)) return fail('redis-version', list, 'Muster needs Redis 6.2 or newer; 7 is better.')
  if (new Set(versions.map(({ version }) => version)).size > 1)
    return warn('redis-version', list, 'Bring all servers to the same version, replicas first.')
  return ok('redis-version', versions[0]?.version ?? '')
}

const checkFile: Check = ({ servers }) =>
  onEach(
    'redis-file',
    servers,
    ({ info }) => {
      if (info.fileFaults.length > 0) return { isGrave: true, text: info.fileFaults.join(', ') }
      return info.isLoading ? { isGrave: false, text: 'it is loading its data' } : undefined
    },
    'See its log, and whether its disk is full or broken: Redis takes nothing while it cannot write.',
    'written without error',
  )

const slowMs = 100
const tooSlowMs = 1000

const checkLatency: Check = ({ servers }) =>
  onEach(
    'redis-latency',
    servers,
    ({ pingMs }) =>
      pingMs > slowMs ? { isGrave: pingMs > tooSlowMs, text: `answers after ${Math.round(pingMs)} ms` } : undefined,
    'Is its machine busy, is the network slow, or does a client run long commands (SLOWLOG GET)?',
    `at most ${Math.max(...servers.map(({ pingMs }) => pingMs)).toFixed(1)} ms`,
  )

const checks: readonly Check[] = [
  checkPrimary,
  checkReplicas,
  checkEviction,
  checkAppendOnly,
  checkMinReplicas,
  checkMemory,
  checkVersion,
  checkFile,
  checkLatency,
]
