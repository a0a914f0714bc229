/** The worker with checkpoints, with jobs that must run alone, and when its instance is to end. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import type { Interruption } from '../../src/contract/worker-protocol.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { Worker } from '../../src/worker/agent/agent.ts'
import { InterruptionWatch } from '../../src/worker/agent/interruption-watch.ts'
import { type Imds, startImds } from '../support/aws/imds.ts'
import { FakeNode } from '../support/fake-node.ts'
import { isAlive } from '../support/is-alive.ts'
import { until } from '../support/until.ts'

const handlers = fileURLToPath(new URL('../support/worker-handlers.mjs', import.meta.url))
const workerProcess = fileURLToPath(new URL('../support/worker-process.mjs', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'muster-leaving-'))
const log = pino({ level: 'silent' })
const instanceId = 'i-0123456789abcdef0'

const environmentFor = (node: FakeNode, more: Record<string, string> = {}): Record<string, string> => ({
  MUSTER_NODE_URLS: node.url,
  MUSTER_HANDLERS: handlers,
  MUSTER_CONFIG_FILE: '/nonexistent',
  MUSTER_WORKER_SLOTS: '2',
  ...more,
})

async function setUp(
  test: Test,
  { metadataUrl, ...more }: Record<string, string> = {},
): Promise<{ node: FakeNode; worker: Worker }> {
  const node = new FakeNode()
  await node.open()
  const settings = readSettings(environmentFor(node, more))
  const watch = metadataUrl === undefined ? {} : { metadataUrl }
  const worker = new Worker({ settings, queue: 'default', instanceId, log, ...watch })
  test.teardown(async () => {
    const pids = worker.slotPids
    await worker.stopNow()
    await node.close()
    await until(() => !pids.some(isAlive))
  })
  await worker.start()
  return { node, worker }
}

async function openImds(test: Test): Promise<Imds> {
  const imds = await startImds({
    instanceId,
    type: 'm5.large',
    zone: 'eu-central-1a',
    region: 'eu-central-1',
    market: 'spot',
    imageId: 'ami-1',
    accountId: '123456789012',
    architecture: 'x86_64',
    privateIp: '10.0.0.1',
    launchTime: new Date(),
    tags: {},
    showsTags: true,
    profile: undefined,
  })
  test.teardown(async () => await imds.close())
  return imds
}

const json = (value: unknown) => ({ json: value })

t.test('checkpoints', async t => {
  const { node } = await setUp(t)

  await t.test('are kept before the call returns, and given to the next attempt', async t => {
    const [first] = node.add({ type: 'relay', payload: json({ leave: 'so far', end: 'throw' }) }) as [string]
    t.match((await node.result(first)).error, { code: 'handler_error', message: 'not yet' })
    t.same(node.events, [`checkpoint ${first}`, `complete ${first}`])
    t.equal(node.checkpoints.get(first)?.toString(), 'so far')
    const [next, none] = node.add(
      { type: 'relay', payload: json({}), checkpoint: { base64: Buffer.from('so far').toString('base64') } },
      { type: 'relay', payload: json({}) },
    ) as [string, string]
    t.same((await node.result(next)).value, json({ found: 'so far', size: 6 }))
    t.same((await node.result(none)).value, json({ found: null, size: 0 }))
  })

  await t.test('large ones are streamed in, also beside a large payload, and out', async t => {
    const bytes = Buffer.alloc(3_000_000, 'large')
    const inline = node.addWithCheckpointBlob('relay', bytes, json({ leave: 200_000 }))
    t.same((await node.result(inline)).value, json({ found: 'large'.repeat(8), size: 3_000_000 }))
    t.ok(node.checkpoints.get(inline)?.[0]?.equals(Buffer.alloc(200_000, 'c')))
    const payload = Buffer.from(JSON.stringify({ leave: 'x'.repeat(50_000) }))
    const both = node.addWithCheckpointBlob('relay', bytes, payload)
    t.same((await node.result(both)).value, json({ found: 'large'.repeat(8), size: 3_000_000 }))
    t.equal(node.checkpoints.get(both)?.[0]?.length, 50_000)
    const payloadAlone = node.addWithBlob('relay', payload, 'json')
    t.same(
      (await node.result(payloadAlone)).value,
      json({ found: null, size: 0 }),
      'the slot forgets what it was given',
    )
  })

  await t.test('one that is not there any more costs nothing but time', async t => {
    const lost = node.addWithCheckpointBlob('relay', Buffer.alloc(70_000), json({}), false)
    t.same((await node.result(lost)).value, json({ found: null, size: 0 }))
    t.match(node.logs.get(lost), [/^Starting from the beginning/])
  })

  await t.test('of several at once the newest counts, and no byte is torn', async t => {
    node.refusesCheckpoints = 2
    const [hasty] = node.add({ type: 'hasty', payload: json(30) }) as [string]
    t.match((await node.result(hasty)).error, { message: 'not yet' })
    const kept = node.checkpoints.get(hasty) ?? []
    t.ok(kept.at(-1)?.equals(Buffer.alloc(1_000_000, 30)), 'the last one is there before the outcome')
    for (const bytes of kept) t.ok(bytes.equals(Buffer.alloc(1_000_000, bytes[0])))
    t.equal(node.stale.length, 0)
  })

  await t.test('wait for a node that cannot now; a cancelled job waits for nothing', async t => {
    node.refusesCheckpoints = Number.POSITIVE_INFINITY
    const [waits, cancelled] = node.add(
      { type: 'relay', payload: json({ leave: 'late' }) },
      { type: 'relay', payload: json({ leave: 'never' }) },
    ) as [string, string]
    await node.when(() => node.leasedIds.length === 2, 'both leased')
    node.cancel(cancelled)
    const [after] = node.add({ type: 'noop' }) as [string]
    await node.result(after)
    t.equal(node.completionOf(waits), undefined)
    node.refusesCheckpoints = 0
    t.same((await node.result(waits)).value, json({ found: null, size: 0 }))
    t.equal(node.checkpoints.get(cancelled), undefined)
  })

  await t.test('a job that ran out of time leaves one in the time before its slot is killed', async t => {
    const [late] = node.add({ type: 'parting', payload: json({}), timeoutMs: 200 }) as [string]
    t.match((await node.result(late)).error, { code: 'timeout' })
    t.equal(node.checkpoints.get(late)?.toString(), 'AbortError timeout')
  })
})

t.test('a job that must run alone', async t => {
  const { node } = await setUp(t)
  const file = join(folder, 'alone')
  const span = (name: string, ms: number, exclusive?: true) => ({
    type: 'span',
    payload: json({ file, name, ms }),
    ...(exclusive && { exclusive }),
  })
  const [long] = node.add(span('long', 1200)) as [string]
  await node.when(() => node.leasedIds.length === 1, 'the long one is leased')
  const [alone, beside] = node.add(span('alone', 300, true), span('beside', 10)) as [string, string]
  await node.when(() => node.leasedIds.includes(alone), 'the other is leased')
  const [after] = node.add(span('after', 10)) as [string]
  for (const id of [long, alone]) await node.result(id)
  await node.when(() => [beside, after].every(id => node.completionOf(id) || node.returned.includes(id)), 'the rest')
  const lines = readFileSync(file, 'utf8').trim().split('\n')
  const begin = lines.indexOf('+alone')
  t.equal(lines[begin + 1], '-alone', 'nothing begins or ends beside it')
  const before = lines.slice(0, begin)
  t.ok(before.includes('-long'), 'what ran has finished before')
  for (const line of before.filter(line => line[0] === '+')) t.ok(before.includes(`-${line.slice(1)}`), line)
  // Series of them come one at a time: each claim asks for one.
  const claims = node.claims.length
  const series = node.add(...Array.from({ length: 6 }, (_, index) => span(`s${index}`, 1, true)))
  await node.when(() => series.every(id => node.completionOf(id) || node.returned.includes(id)), 'the series')
  t.ok(series.filter(id => node.completionOf(id)).length >= 1)
  t.ok(node.claims.length >= claims)
  t.equal(node.stale.length, 0)
})

t.test('an alone job that waits goes back with a drain, and with a cancel', async t => {
  const { node, worker } = await setUp(t, { MUSTER_WORKER_DRAIN_MS: '100' })
  const [file, begun] = [join(folder, 'rest'), join(folder, 'rest begun')]
  const [rests] = node.add({ type: 'patient', payload: json({ ms: 60_000, file, begun }) }) as [string]
  await until(() => existsSync(begun))
  const [first] = node.add({ type: 'noop', exclusive: true }) as [string]
  await node.when(() => node.leasedIds.length === 2, 'the alone one is leased')
  node.cancel(first)
  const [second] = node.add({ type: 'noop', exclusive: true }) as [string]
  await node.when(() => node.leasedIds.includes(second), 'the next one is leased')
  await worker.drain()
  t.same(node.returned, [second, rests])
  t.equal(node.completions.length, 0)
})

t.test('a drain waits for the last checkpoint before it returns the job', async t => {
  const { node, worker } = await setUp(t, { MUSTER_WORKER_DRAIN_MS: '100' })
  const begun = join(folder, 'hasty begun')
  const [parts] = node.add({ type: 'parting', payload: json({ how: 'hasty', begun }) }) as [string]
  await until(() => existsSync(begun))
  node.refusesCheckpoints = 3
  await worker.drain()
  t.same(node.events, [`checkpoint ${parts}`, `return ${parts}`])
  t.equal(node.checkpoints.get(parts)?.toString(), 'AbortError worker-leaves')
})

t.test('a Spot notice', async t => {
  await t.test('an interruption: returns at once, finishes what fits, hands the rest back', async t => {
    const imds = await openImds(t)
    const { node, worker } = await setUp(t, { metadataUrl: imds.url, MUSTER_WORKER_DRAIN_MS: '60000' })
    const begun = [join(folder, 'fits begun'), join(folder, 'parts begun')]
    const [fits, parts] = node.add(
      { type: 'patient', payload: json({ ms: 2500, file: join(folder, 'fits'), begun: begun[0] }) },
      { type: 'parting', payload: json({ begun: begun[1] }) },
    ) as [string, string]
    await until(() => begun.every(name => existsSync(name)))
    // 20 s left: 10 s to go on, 10 s to leave.
    imds.interruptedAt = new Date(Date.now() + 20_000)
    await node.when(() => node.heartbeats.some(({ interruption }) => interruption !== undefined), 'the news')
    const told = node.heartbeats.find(({ interruption }) => interruption !== undefined)
    t.match(told, { state: 'draining', interruption: { kind: 'interruption' } })
    t.ok(Math.abs(Date.parse(told?.interruption?.at ?? '') - imds.interruptedAt.getTime()) <= 1000)
    t.equal(await worker.stopped, 'interrupted')
    t.match(node.completionOf(fits)?.value, json('rested'))
    t.equal(node.checkpoints.get(parts)?.toString(), 'AbortError interruption')
    t.same(node.returned, [parts])
    t.ok(node.events.indexOf(`checkpoint ${parts}`) < node.events.indexOf(`return ${parts}`))
    t.equal(node.completions.length + node.stale.length, 1, 'nothing of the other counts')
    t.ok(node.heartbeats.some(({ state }) => state === 'stopped'))
  })

  await t.test('a rebalance recommendation is a drain; jobs that wait go back at once', async t => {
    const imds = await openImds(t)
    const { node, worker } = await setUp(t, { metadataUrl: imds.url, MUSTER_WORKER_SLOTS: '1' })
    const busy = (ms: number) => ({ type: 'busy', payload: json(ms) })
    for (const id of node.add(...Array.from({ length: 20 }, () => busy(0)))) await node.result(id)
    const [long, ...others] = node.add(busy(3500), ...Array.from({ length: 5 }, () => busy(0))) as [string, ...string[]]
    await node.when(() => node.leasedIds.length >= 2, 'leased')
    imds.rebalanceSince = new Date()
    t.equal(await worker.stopped, 'interrupted')
    t.match((await node.result(long)).value, json(3500))
    t.ok(
      others.every(
        id => node.completionOf(id) !== undefined || node.returned.includes(id) || !node.leasedIds.includes(id),
      ),
    )
    t.match(
      node.heartbeats.findLast(({ state }) => state === 'stopped'),
      { interruption: { kind: 'rebalance' } },
    )
  })

  await t.test('as a process on EC2: found by the environment, exit code 0', async t => {
    const imds = await openImds(t)
    const node = new FakeNode()
    await node.open()
    t.teardown(async () => await node.close())
    const child = spawnWorker(t, node, { MUSTER_INSTANCE_ID: instanceId, AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url })
    await node.when(() => node.claims.length > 0, 'a claim')
    await until(() => imds.asked.length > 0)
    imds.interruptedAt = new Date(Date.now() + 120_000)
    t.same(await once(child, 'exit'), [0, null])
    t.match(
      node.heartbeats.findLast(({ state }) => state === 'stopped'),
      { interruption: { kind: 'interruption' } },
    )
  })
})

t.test('the watch', async t => {
  const warnings: string[] = []
  const counting = pino({ level: 'warn' }, { write: (line: string) => void warnings.push(line) })
  const notices: Interruption[] = []
  let answer: (path: string, token: string) => [number, string] = () => [500, '']
  const asked: string[] = []
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`)
    const [status, text] = answer(String(request.url), String(request.headers['x-aws-ec2-metadata-token']))
    response.writeHead(status).end(text)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const watch = new InterruptionWatch({ url, log: counting, onNotice: notice => notices.push(notice) })
  t.teardown(async () => {
    await watch.stop()
    server.close()
  })
  watch.start()
  await until(() => asked.length >= 2)
  t.equal(warnings.length, 1, 'an outage is told once')
  // Tokens run out: the second one is asked for when the first is refused.
  let token = 'first'
  answer = (path, given) => {
    if (path === '/latest/api/token') return [200, token]
    if (given !== token) return [401, '']
    return [404, '']
  }
  await until(() => asked.filter(line => line.startsWith('GET')).length >= 2)
  token = 'second'
  const before = Date.now()
  const noticeTime = '2030-01-01T00:00:00Z'
  answer = (path, given) => {
    if (path === '/latest/api/token') return [200, token]
    if (given !== token) return [401, '']
    if (path.endsWith('/rebalance')) return [200, JSON.stringify({ noticeTime })]
    return notices.length === 0 ? [404, ''] : [200, 'no JSON']
  }
  await until(() => notices.length === 2)
  t.same(notices[0], { kind: 'rebalance', at: '2030-01-01T00:00:00.000Z' })
  t.equal(notices[1]?.kind, 'interruption')
  const at = Date.parse(notices[1]?.at ?? '')
  t.ok(at >= before && at <= Date.now(), 'a notice without a time counts from now')
  const count = asked.length
  await watch.stop()
  t.equal(asked.length, count)
  t.equal(warnings.filter(line => line.includes('cannot be read')).length, 1)
})

function spawnWorker(test: Test, node: FakeNode, more: Record<string, string>): ChildProcess {
  const environment = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('MUSTER_') && name !== 'NODE_OPTIONS'),
  )
  const env = { ...environment, ...environmentFor(node, more) }
  const child = spawn(process.execPath, [workerProcess], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  test.teardown(() => child.kill('SIGKILL'))
  return child
}
