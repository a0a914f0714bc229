/** `muster doctor` on real parts: all is well, then one thing after the other is broken, and that very check says so. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import t, { type Test } from 'tap'
import { checkClocks, checkDisks, checkFleet, checkWorkers } from '../../src/doctor/check-surroundings.ts'
import { type Finding, renderFindings } from '../../src/doctor/finding.ts'
import { examine } from '../../src/doctor/run-doctor.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { version } from '../../src/version.ts'
import { cli, type NodeProcess, startNodeProcess } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { startCluster } from '../support/redis-cluster.ts'
import { startSentinelTrio } from '../support/redis-sentinel.ts'
import { until } from '../support/until.ts'

type Environment = Record<string, string>

const look = async (environment: Environment): Promise<Finding[]> =>
  await examine(readSettings({ MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_FLEET: 'none', ...environment }))

/** What is not well, by name; the disk of this machine is not what is tested. */
const unwell = (findings: readonly Finding[]): Record<string, string> =>
  Object.fromEntries(
    findings
      .filter(({ name, outcome }) => (outcome === 'fail' || outcome === 'warn') && name !== 'disk')
      .map(({ name, outcome }) => [name, outcome]),
  )
/** Looks until just that is not well: on a busy machine one thing or another is slow for a moment, and is said to be. */
async function lookUntil(environment: Environment, expected: Record<string, string>): Promise<Finding[]> {
  let findings: Finding[] = []
  await until(async () => {
    findings = await look(environment)
    return isDeepStrictEqual(unwell(findings), expected)
  }).catch(error => {
    throw new Error(`${(error as Error).message}\n${JSON.stringify(findings, null, 1)}`)
  })
  return findings
}
const named = (findings: readonly Finding[], name: string): Finding =>
  findings.find(finding => finding.name === name) as Finding

async function runCommand(
  args: string[],
  environment: Environment,
): Promise<{ code: number; out: string; err: string }> {
  const env = { PATH: process.env.PATH, MUSTER_CONFIG_FILE: '/nonexistent', ...environment }
  const child = spawn(process.execPath, [cli, 'doctor', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.on('data', chunk => {
    out += chunk
  })
  child.stderr.on('data', chunk => {
    err += chunk
  })
  const [code] = await once(child, 'close')
  return { code: code as number, out, err }
}

/** The same, until it has printed that; likewise. */
async function runUntil(
  printed: RegExp,
  args: string[],
  environment: Environment,
): Promise<{ code: number; out: string; err: string }> {
  let last = { code: -1, out: '', err: '' }
  await until(async () => {
    last = await runCommand(args, environment)
    return printed.test(last.out)
  }).catch(error => {
    throw new Error(`${(error as Error).message}\n${last.out}${last.err}`)
  })
  return last
}

/** Answers as a node does, with a report of its own. */
async function startFakeNode(t: Test, report: object | number, ready = 200): Promise<string> {
  const server = createServer((request, response) => {
    const status =
      request.url === '/health/ready'
        ? ready
        : typeof report === 'number' && request.url === '/health/checks'
          ? report
          : 200
    response.writeHead(status, { 'content-type': 'application/json' })
    const checks = typeof report === 'number' ? report : { now: new Date().toISOString(), ...report }
    response.end(JSON.stringify(request.url === '/health/checks' ? checks : { status: 'ok', detail: 'because' }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const reportOf = (more: object = {}): object => ({
  nodeId: 'x',
  host: 'h',
  version,
  uptimeMs: 1,
  isStopping: false,
  durability: 'local',
  redis: { kind: 'single', pingMs: 1 },
  fleet: { provider: 'local', maxWorkers: 4, failures: [] },
  workers: { aliveCount: 0, silentCount: 0 },
  ...more,
})

t.test('three servers, three Sentinels and two nodes', async t => {
  const trio = await startSentinelTrio(t, { acl: true })
  const node = { MUSTER_REDIS_URL: trio.url, MUSTER_FLEET: 'local', MUSTER_SHUTDOWN_GRACE_MS: '0' }
  const nodes = [await startNodeProcess(t, node), await startNodeProcess(t, node)] as [NodeProcess, NodeProcess]
  const environment = { MUSTER_REDIS_URL: trio.url, MUSTER_NODE_URLS: nodes.map(({ url }) => url).join(',') }

  await t.test('all is well', async t => {
    const findings = await lookUntil(environment, {})
    t.strictSame(
      findings.filter(({ outcome }) => outcome === 'skipped').map(({ name }) => name),
      ['aws-credentials'],
    )
    const json = await runCommand(['--json'], environment)
    t.equal(json.code, 0, json.err)
    t.strictSame(
      JSON.parse(json.out).checks.map((finding: Finding) => finding.name),
      findings.map(({ name }) => name),
    )
    t.notMatch(json.out + json.err, /pa%3Ass|pa:ss|w4tch/, 'no password is shown')
    const people = await runUntil(/All is well, 1 skipped\.\n$/, [], environment)
    t.equal(people.code, 0)
    t.match(people.out, /✓ nodes-live +all 2 nodes answer/)
  })

  /** Breaks something, looks until that very check shows it, and no other, and mends it. */
  const broken = async (
    what: string,
    {
      breaks,
      mends,
      expected,
      detail,
      action,
    }: {
      breaks: () => Promise<unknown>
      mends: () => Promise<unknown>
      expected: Record<string, string>
      detail: RegExp
      action: RegExp
    },
  ): Promise<void> => {
    await t.test(what, async t => {
      await breaks()
      const findings = await lookUntil(environment, expected)
      const finding = named(findings, Object.keys(expected)[0] as string)
      t.match(finding.detail, detail)
      t.match(finding.action, action)
      await mends()
      await lookUntil(environment, {})
    })
  }
  const primary = await trio.primary()
  const replica = (primary + 1) % 3
  const portOf = (index: number): RegExp => new RegExp(`127\\.0\\.0\\.1:${trio.ports[index]}`)
  const setting = (index: number, name: string, bad: string, good: string) => ({
    breaks: () => trio.ask(index, 'CONFIG', 'SET', name, bad),
    mends: () => trio.ask(index, 'CONFIG', 'SET', name, good),
  })

  await broken('a replica is gone', {
    breaks: () => trio.kill(replica, 'SIGKILL'),
    mends: () => trio.restart(replica),
    expected: { 'redis-servers': 'fail' },
    detail: portOf(replica),
    action: /muster redis run/,
  })
  await broken('a Sentinel stands still', {
    breaks: () => trio.killSentinel(1, 'SIGSTOP'),
    mends: () => trio.killSentinel(1, 'SIGCONT'),
    expected: { sentinels: 'fail' },
    detail: /does not answer: no answer within|Command timed out/,
    action: /Run three/,
  })
  await broken('a server that evicts', {
    ...setting(replica, 'maxmemory-policy', 'allkeys-lru', 'noeviction'),
    expected: { 'redis-eviction': 'fail' },
    detail: new RegExp(`${trio.ports[replica]}: maxmemory-policy is allkeys-lru`),
    action: /maxmemory-policy noeviction/,
  })
  await broken('a server without an append-only file', {
    ...setting(replica, 'appendonly', 'no', 'yes'),
    expected: { 'redis-append-only': 'fail' },
    detail: /appendonly is no/,
    action: /CONFIG SET appendonly yes/,
  })
  await broken('a primary that needs no replica', {
    ...setting(primary, 'min-replicas-to-write', '0', '1'),
    expected: { 'redis-min-replicas': 'fail' },
    detail: /min-replicas-to-write is 0/,
    action: /min-replicas-to-write 1/,
  })
  await broken('a server without room', {
    ...setting(replica, 'maxmemory', '1mb', '0'),
    expected: { 'redis-memory': 'fail' },
    detail: /% of its memory/,
    action: /expire sooner/,
  })
  await broken('a node is down', {
    breaks: async () => {
      nodes[1].kill('SIGKILL')
      await nodes[1].ended()
    },
    mends: () => nodes[1].restart(),
    expected: { 'nodes-live': 'fail' },
    detail: new RegExp(`${nodes[1].url}: .*ECONNREFUSED`),
    action: /Start the node/,
  })
  await broken('a node stands still', {
    breaks: async () => nodes[1].kill('SIGSTOP'),
    mends: async () => nodes[1].kill('SIGCONT'),
    expected: { 'nodes-live': 'fail' },
    detail: /no answer within 5 s/,
    action: /Start the node/,
  })
  await broken('two Sentinels of three are gone', {
    breaks: async () => await Promise.all([1, 2].map(index => trio.killSentinel(index, 'SIGSTOP'))),
    mends: async () => await Promise.all([1, 2].map(index => trio.killSentinel(index, 'SIGCONT'))),
    expected: { 'sentinel-quorum': 'fail', sentinels: 'fail' },
    detail: /NOQUORUM/,
    action: /Start the missing Sentinels/,
  })
  await t.test('the command says so, and exits with 1', async t => {
    await trio.ask(replica, 'CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
    const { code, out } = await runUntil(/1 to mend, 0 to look at, 1 skipped\.\n$/, [], environment)
    t.equal(code, 1)
    t.match(out, /✗ redis-eviction .*\n +→ Run "CONFIG SET maxmemory-policy noeviction"/)
  })
})

t.test('where it runs decides what it sees', async t => {
  const nowhere = { MUSTER_DATA_DIR: t.testdir() }
  await t.test('one machine: the Redis of the node, by its socket', async t => {
    const node = await startNodeProcess(t)
    const findings = await lookUntil({ MUSTER_NODE_URLS: node.url, MUSTER_DATA_DIR: node.dataDir }, {})
    t.match(named(findings, 'redis-servers').detail, /redis\.sock$/)
    t.match(named(findings, 'redis-replicas'), { outcome: 'skipped' })
    const away = await look({ MUSTER_NODE_URLS: node.url, ...nowhere })
    t.match(named(away, 'redis-servers'), { outcome: 'skipped', detail: /seen through the nodes only/ })
    t.match(named(away, 'nodes-redis'), { outcome: 'ok' })
  })

  await t.test('one Redis that syncs each second, and another without a file', async t => {
    const url = await startFakeNode(t, reportOf())
    const soft = await startTestRedis(t, { tcp: true, appendOnly: true, config: { appendfsync: 'everysec' } })
    const findings = await look({ MUSTER_NODE_URLS: url, MUSTER_REDIS_URL: soft.url as string })
    t.match(named(findings, 'redis-append-only'), { outcome: 'warn', action: /appendfsync always/ })
    await soft.kill()
    const gone = await look({ MUSTER_NODE_URLS: url, MUSTER_REDIS_URL: soft.url as string })
    t.match(named(gone, 'redis-servers'), { outcome: 'fail', detail: /ECONNREFUSED/ })
  })

  await t.test('a Cluster', async t => {
    const url = await startFakeNode(t, reportOf({ redis: { kind: 'cluster', pingMs: 1 } }))
    const cluster = await startCluster(t)
    const findings = await look({ MUSTER_NODE_URLS: url, MUSTER_REDIS_URL: cluster.url })
    t.match(named(findings, 'redis-primary'), { outcome: 'ok', detail: /^3 masters/ })
    t.match(named(findings, 'redis-replicas'), { outcome: 'fail', detail: /no replica/ })
  })

  await t.test('a machine that knows only the URLs', async t => {
    const url = await startFakeNode(t, 401)
    const findings = await look({ MUSTER_NODE_URLS: url, ...nowhere })
    t.match(named(findings, 'nodes-live'), { outcome: 'ok' })
    t.match(named(findings, 'nodes-version'), { outcome: 'skipped', detail: /MUSTER_API_KEY/ })
    t.match(named(findings, 'workers'), { outcome: 'skipped' })
  })
})

t.test('nodes that do not go together', async t => {
  const nowhere = { MUSTER_DATA_DIR: t.testdir() }
  const one = await startFakeNode(t, reportOf({ nodeId: 'one' }))
  const withAnother = async (report: object, ready?: number): Promise<Environment> => ({
    MUSTER_NODE_URLS: `${one},${await startFakeNode(t, reportOf({ nodeId: 'two', ...report }), ready)}`,
    ...nowhere,
  })
  const look2 = async (report: object, ready?: number): Promise<Finding[]> =>
    await look(await withAnother(report, ready))
  await lookUntil(await withAnother({}), {})
  t.match(named(await look2({ version: '0.0.1' }), 'nodes-version'), { outcome: 'fail', detail: /0\.0\.1/ })
  t.match(named(await look2({ nodeId: 'one' }), 'nodes-redundant'), { outcome: 'warn', detail: /the same node/ })
  t.match(named(await look2({ durability: 'replicated' }), 'nodes-durability'), { outcome: 'fail' })
  t.match(named(await look2({ redis: { kind: 'single', error: 'gone' } }), 'nodes-redis'), {
    outcome: 'fail',
    detail: /gone/,
  })
  t.match(named(await look2({}, 503), 'nodes-ready'), { outcome: 'fail', detail: /503 because/ })
  const late = new Date(Date.now() - 60_000).toISOString()
  t.match(named(await look2({ now: late }), 'clocks'), { outcome: 'fail', detail: /behind this machine/ })
})

t.test('clocks, disks, workers and launches', async t => {
  const view = (report: object, clockAheadMs = 0) => ({
    url: 'http://a',
    report: reportOf(report) as never,
    clockAheadMs,
  })
  t.match(checkClocks([view({}, 700)], []), { outcome: 'warn', detail: /700 ms ahead/ })
  t.match(checkClocks([view({}, -6000)], []), { outcome: 'fail', action: /chrony/ })
  t.match(checkClocks([view({}, 400)], []), { outcome: 'ok' })
  const disk = (freeBytes: number) => checkDisks([{ where: 'a', freeBytes, totalBytes: 100 * 1024 ** 3 }])
  t.equal(disk(50 * 1024 ** 3).outcome, 'ok')
  t.equal(disk(5 * 1024 ** 3).outcome, 'warn')
  t.equal(disk(1024 ** 3).outcome, 'fail')
  t.match(checkWorkers([view({ workers: { aliveCount: 1, silentCount: 2 } })]), {
    outcome: 'warn',
    detail: /2 not heard/,
  })
  const none = { provider: 'none', maxWorkers: 4, failures: [] }
  const nobody = { aliveCount: 0, silentCount: 0 }
  t.match(checkWorkers([view({ workers: nobody, fleet: none })]), { outcome: 'warn', detail: /launches none/ })
  const local = { provider: 'local', maxWorkers: 4, failures: [] }
  t.match(checkWorkers([view({ workers: nobody, fleet: local })]), {
    outcome: 'ok',
    detail: /launched when there is work/,
  })
  const withoutWorker = [{ queue: 'q', type: 'thumbnail', waitingCount: 3 }]
  for (const aliveCount of [0, 1])
    t.match(checkWorkers([view({ workers: { ...nobody, aliveCount }, fleet: local, withoutWorker })]), {
      outcome: 'warn',
      detail: /^3 jobs of type "thumbnail" wait in queue "q".*nor would one that is launched/,
      action: /--handlers/,
    })
  const standingStill = [{ queue: 'q', workerId: 'w', forMs: 65_000 }]
  t.match(checkWorkers([view({ workers: { ...nobody, aliveCount: 1 }, standingStill })]), {
    outcome: 'warn',
    detail: /^w takes nothing from queue "q" for 65 s/,
  })
  const failures = [{ queue: 'q', count: 3, lastAt: 'then', lastError: 'VcpuLimitExceeded' }]
  t.match(checkFleet([view({ fleet: { provider: 'ec2', maxWorkers: 4, failures } })]), {
    outcome: 'fail',
    detail: /queue q: 3 launches failed.*VcpuLimitExceeded/,
    action: /muster fleet explain/,
  })
  t.match(
    renderFindings([{ name: 'a', outcome: 'warn', detail: 'b', action: 'c' }]).at(-1),
    /Nothing fails; 1 to look at\./,
  )
})

t.test('a mistake of the user is no sick deployment: exit code 2', async t => {
  t.equal((await runCommand(['--nonsense'], {})).code, 2)
  t.equal((await runCommand([], { MUSTER_NODE_URLS: 'nonsense' })).code, 2)
  t.equal((await runCommand(['--help'], {})).code, 0)
})
