import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { uptime } from 'node:os'
import t from 'tap'
import { BootLog, tellBoots } from '../../src/fleet/measure/boot-log.ts'
import { bootTimeline, describeBoot, stageTimes } from '../../src/fleet/measure/boot-stages.ts'
import type { Instance } from '../../src/fleet/providers/provider.ts'
import type { WorkerRecord } from '../../src/fleet/workers/registry.ts'
import { bootReport } from '../../src/worker/agent/boot-report.ts'
import { startTestApi } from '../support/api.ts'
import { cli, startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

const t0 = Date.UTC(2026, 10, 1)
const iso = (ms: number): string => new Date(ms).toISOString()
const instance = (id: string, launchedAt = t0): Instance => ({
  id,
  pool: 'default',
  slots: 1,
  decisionId: 'd',
  launchedAt,
  state: 'running',
})
const worker = (instanceId: string, more: Partial<WorkerRecord>): WorkerRecord =>
  ({ instanceId, boot: {}, firstSeenAt: t0, firstClaimAt: undefined, ...more }) as WorkerRecord

t.test('stages of a boot, as far as they are known', async t => {
  const boot = {
    bootedAt: iso(t0 + 8000),
    userDataAt: iso(t0 + 10_000),
    installedAt: iso(t0 + 40_000),
    agentAt: iso(t0 + 42_500),
  }
  const full = bootTimeline(t0, { boot, firstSeenAt: t0 + 43_200, firstClaimAt: t0 + 43_300 })
  const times = stageTimes(full)
  t.same(times, {
    readyMs: 43_200,
    ...{ bootedMs: 8000, userDataMs: 2000, installedMs: 30_000, agentMs: 2500, registeredMs: 700, firstClaimMs: 100 },
  })
  t.equal(
    describeBoot(times),
    '43.2 s (boot 8.00 s, to user data 2.00 s, install 30.0 s, to agent 2.50 s, register 0.70 s)',
  )
  const bare = bootTimeline(t0, { boot: {}, firstSeenAt: t0 + 5000, firstClaimAt: undefined })
  t.same(bare, { launchedAt: t0, registeredAt: t0 + 5000 })
  t.same(stageTimes(bare), { readyMs: 5000, registeredMs: 5000 }, 'a worker in another language may tell nothing')
})

t.test('clocks that differ, the uptime of a host and nonsense make no stage negative', async t => {
  const boot = { bootedAt: iso(t0 - 3_600_000), agentAt: iso(t0 - 300), userDataAt: 'yesterday' }
  const early = bootTimeline(t0, { boot, firstSeenAt: t0 + 400, firstClaimAt: t0 + 300 })
  t.same(early, { launchedAt: t0, agentAt: t0, registeredAt: t0 + 400, firstClaimAt: t0 + 400 })
  const late = bootTimeline(t0, { boot: { agentAt: iso(t0 + 9000) }, firstSeenAt: t0 - 5, firstClaimAt: undefined })
  t.same(stageTimes(late), { readyMs: 0, agentMs: 0, registeredMs: 0 })
})

t.test('each instance is told of twice, and sampled once', async t => {
  const log = new BootLog()
  t.same(log.observe([instance('a')], []), [])
  t.equal(log.medians, undefined)
  const ready = worker('a', { boot: { agentAt: iso(t0 + 900) }, firstSeenAt: t0 + 1000 })
  t.match(log.observe([instance('a')], [ready]), [{ kind: 'boot', instanceId: 'a', reached: 'ready' }])
  t.same(log.observe([instance('a')], [ready]), [])
  const claimed = { ...ready, firstClaimAt: t0 + 1250 }
  const news = log.observe([instance('a')], [claimed])
  t.match(news, [{ instanceId: 'a', reached: 'first-claim', stages: { firstClaimMs: 250 } }])
  t.equal(tellBoots(news), 'a claimed its first job 0.25 s after it was ready.')
  t.same(log.observe([instance('a')], [claimed]), [])
  t.same(log.medians, { sampleCount: 1, readyMs: 1000, agentMs: 900, registeredMs: 100, firstClaimMs: 250 })

  const others = Array.from({ length: 20 }, (_, i) => instance(`b${i}`))
  const all = others.map(({ id }, i) => worker(id, { firstSeenAt: t0 + 2000 + i }))
  const told = log.observe(others, all)
  t.equal(told.length, 20)
  t.match(tellBoots(told), /^b0 is ready 2\.00 s \(register 2\.00 s\) after its launch; b1 .*; and 15 more\.$/)
  t.match(log.medians, { sampleCount: 15, readyMs: 2012 }, 'the newest fifteen')
})

t.test('who takes over does not tell again what came up before, and yet knows how long it takes', async t => {
  const log = new BootLog()
  t.same(log.observe([instance('a')], [worker('a', { firstSeenAt: t0 + 1000 })]), [])
  t.match(log.medians, { sampleCount: 1, readyMs: 1000 })
  const both = [worker('a', { firstSeenAt: t0 + 1000 }), worker('b', { firstSeenAt: t0 + 3000 })]
  t.match(log.observe([instance('a'), instance('b')], both), [{ instanceId: 'b', reached: 'ready' }])
  log.takeOver()
  const claimed = both.map(one => ({ ...one, firstClaimAt: t0 + 4000 }))
  t.same(log.observe([instance('a'), instance('b')], claimed), [])
})

t.test('a worker reads what the user data noted', async t => {
  const times = { kernelAt: t0, processAt: t0 + 5000.4 }
  const own = { bootedAt: iso(t0), agentAt: iso(t0 + 5000) }
  t.same(bootReport('', times), own)
  const noted = `userData=${t0 + 1000},installed=${t0 + 4000}`
  t.same(bootReport(noted, times), { ...own, userDataAt: iso(t0 + 1000), installedAt: iso(t0 + 4000) })
  t.same(bootReport('userData=soon,installed,other=1700000000000,,', times), own, 'nonsense is left out')
})

t.test('a worker process reports its boot, and its first claim is noted', async t => {
  const api = await startTestApi(t)
  const begunAt = Date.now()
  const env = {
    ...{ PATH: process.env.PATH, MUSTER_NODE_URLS: api.url, MUSTER_WORKER_SLOTS: '1', MUSTER_INSTANCE_ID: 'box-1' },
    MUSTER_BOOT_STAGES: `userData=${begunAt - 2000},installed=${begunAt - 1000}`,
  }
  const child = spawn(process.execPath, [cli, 'worker'], { env, stdio: 'ignore' })
  t.teardown(async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  })
  const record = async (): Promise<WorkerRecord | undefined> => (await api.fleet.registry.all())[0]
  await until(async () => (await record()) !== undefined)
  const first = await record()
  t.match(first, {
    boot: { userDataAt: iso(begunAt - 2000), installedAt: iso(begunAt - 1000) },
    firstClaimAt: undefined,
  })
  const agentAt = Date.parse(first?.boot.agentAt ?? '')
  t.ok(agentAt >= begunAt - 1000 && agentAt <= (first?.firstSeenAt ?? 0), 'its process began before it registered')
  t.ok(Math.abs(Date.parse(first?.boot.bootedAt ?? '') - (Date.now() - uptime() * 1000)) < 5000)
  const octets = { 'content-type': 'application/octet-stream' }
  await api.call('PUT', '/enqueue?iterations=1', { body: 'x', headers: octets })
  await until(async () => (await record())?.firstClaimAt !== undefined)
  t.ok(((await record())?.firstClaimAt ?? 0) >= (first?.firstSeenAt ?? Number.POSITIVE_INFINITY))
})

t.test('/fleet and the journal of a node show how its instances came up', async t => {
  const node = await startNodeProcess(t, { MUSTER_MIN_WORKERS: '1', MUSTER_MAX_WORKERS: '1' })
  // biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
  const get = async (path: string): Promise<any> => await (await fetch(node.url + path)).json()
  const boot = async () => (await get('/fleet')).pools[0].instances[0]?.boot
  await until(async () => (await boot()) !== undefined)
  const ready = await boot()
  t.match(ready, { launchedAt: /Z$/, agentAt: /Z$/, registeredAt: /Z$/, stages: { agentMs: Number, readyMs: Number } })
  if (uptime() > 600) t.notOk(ready.bootedAt, 'the machine was up before: that is no stage')
  t.ok(ready.stages.agentMs + ready.stages.registeredMs === ready.stages.readyMs)
  await fetch(`${node.url}/enqueue?iterations=1`, {
    method: 'PUT',
    body: 'x',
    headers: { 'content-type': 'application/octet-stream' },
  })
  await until(async () => (await boot())?.firstClaimAt !== undefined)
  const told = async () =>
    (await get('/fleet/decisions')).decisions
      .reverse()
      .filter(({ reason = '' }) => reason === 'booted')
      .flatMap(({ actions = [] }) => actions)
  await until(async () => (await told()).length === 2)
  t.match(await told(), [
    { kind: 'boot', reached: 'ready', stages: { readyMs: ready.stages.readyMs } },
    { kind: 'boot', reached: 'first-claim', stages: { firstClaimMs: Number } },
  ])
  t.match(node.output(), /is ready [\d.]+ s \(.*\) after its launch/)
  await until(async () => (await get('/fleet')).pools[0].boot?.firstClaimMs !== undefined)
  t.match((await get('/fleet')).pools[0].boot, { sampleCount: 1, readyMs: ready.stages.readyMs, agentMs: Number })
})
