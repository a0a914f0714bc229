/** The worker when nodes go away, when it is told to go, and when it is killed. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Logger, pino } from 'pino'
import t, { type Test } from 'tap'
import { readSettings } from '../../src/settings/settings.ts'
import { Worker } from '../../src/worker/agent/agent.ts'
import { keptLog } from '../support/agent.ts'
import { FakeNode } from '../support/fake-node.ts'
import { isAlive } from '../support/is-alive.ts'
import { until } from '../support/until.ts'

const handlers = fileURLToPath(new URL('../support/worker-handlers.mjs', import.meta.url))
const workerProcess = fileURLToPath(new URL('../support/worker-process.mjs', import.meta.url))
const pythonWorker = fileURLToPath(new URL('../../examples/worker.py', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'muster-outages-'))
const silent = pino({ level: 'silent' })

async function openNode(test: Test): Promise<FakeNode> {
  const node = new FakeNode()
  await node.open()
  test.teardown(async () => await node.close())
  return node
}

async function startWorker(
  test: Test,
  nodeUrls: string,
  more: Record<string, string> = {},
  log: Logger = silent,
): Promise<Worker> {
  const environment = {
    MUSTER_NODE_URLS: nodeUrls,
    MUSTER_HANDLERS: handlers,
    MUSTER_CONFIG_FILE: '/nonexistent',
    MUSTER_WORKER_SLOTS: '2',
    ...more,
  }
  const worker = new Worker({ settings: readSettings(environment), queue: 'default', log })
  test.teardown(async () => {
    const pids = worker.slotPids
    await worker.stopNow()
    await until(() => !pids.some(isAlive))
  })
  await worker.start()
  return worker
}

/** A worker as a process; killed afterwards. */
function spawnWorker(test: Test, node: FakeNode, more: Record<string, string> = {}): ChildProcess {
  const environment = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('MUSTER_') && name !== 'NODE_OPTIONS'),
  )
  const env = {
    ...environment,
    MUSTER_NODE_URLS: node.url,
    MUSTER_HANDLERS: handlers,
    MUSTER_CONFIG_FILE: '/nonexistent',
    MUSTER_WORKER_SLOTS: '2',
    ...more,
  }
  const child = spawn(process.execPath, [workerProcess], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  test.teardown(() => child.kill('SIGKILL'))
  return child
}

/** Its slots; the bundler of handlers is a child, too. */
const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .map(Number)
    .filter(child => commandOf(child).includes('slot-main'))

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}

t.test('a node that is away and comes back gets a result that waited, once', async t => {
  const node = await openNode(t)
  const { log, lines } = keptLog()
  await startWorker(t, node.url, {}, log)
  const gate = join(folder, 'away')
  const [id] = node.add({ type: 'gated', payload: { json: { gate } } }) as [string]
  await node.when(() => node.leasedIds.length === 1, 'leased')
  await node.close()
  // The job ends while nobody is there to be told.
  writeFileSync(gate, '')
  await until(() => lines.some(({ msg }) => /^results cannot be delivered now/.test(String(msg))))
  t.equal(node.completions.length, 0)
  await node.open()
  t.same((await node.result(id)).value, { json: 'through' })
  const [next] = node.add({ type: 'noop' }) as [string]
  await node.result(next)
  t.equal(node.completions.length, 2)
  t.equal(node.stale.length, 0)
})

t.test('a node without Redis answers 503: results are kept, and nothing is claimed', async t => {
  const node = await openNode(t)
  await startWorker(t, node.url)
  const gate = join(folder, 'refused')
  const [id] = node.add({ type: 'gated', payload: { json: { gate } } }) as [string]
  await node.when(() => node.leasedIds.length === 1, 'leased')
  node.isAway = true
  writeFileSync(gate, '')
  const refused = (call: string): number => node.refused.get(`/workers/${call}`) ?? 0
  await until(() => refused('complete') >= 1)
  const before = refused('claim')
  await until(() => refused('complete') >= 5)
  t.equal(node.completions.length, 0)
  t.ok(refused('claim') <= before + 1, 'no claim is begun; one may have been on its way')
  node.isAway = false
  await node.result(id)
  t.equal(node.completions.length, 1)
})

t.test('a reply that gets lost makes no result appear twice', async t => {
  const node = await openNode(t)
  await startWorker(t, node.url)
  await node.when(() => node.claims.length > 0, 'a claim')
  node.loseNextReply = true
  const [id] = node.add({ type: 'noop' }) as [string]
  await node.when(() => node.stale.length === 1, 'the second try')
  t.equal(node.completions.filter(({ workId }) => workId === id).length, 1)
})

t.test('a worker moves on to the next node, and introduces itself to one that forgot it', async t => {
  const [gone, node] = [await openNode(t), await openNode(t)]
  await gone.close()
  await startWorker(t, `${gone.url},${node.url}`)
  await node.result(node.add({ type: 'noop' })[0] as string)
  node.forgetWorkers()
  await node.result(node.add({ type: 'noop' })[0] as string)
  // The open claim may have been answered before; the next one is certainly refused first.
  node.forgetWorkers()
  await node.result(node.add({ type: 'noop' })[0] as string)
})

t.test('a token that nodes do not accept ends the worker', async t => {
  const node = await openNode(t)
  node.token = 'right'
  const worker = await startWorker(t, node.url, { MUSTER_WORKER_TOKEN: 'wrong' })
  t.equal(await worker.stopped, 'refused')
  const other = await startWorker(t, node.url, { MUSTER_WORKER_TOKEN: 'right' })
  await node.result(node.add({ type: 'noop' })[0] as string)
  await other.drain()
})

t.test('a worker that reaches no node for long ends itself', async t => {
  const node = await openNode(t)
  const worker = await startWorker(t, node.url, { MUSTER_WORKER_ORPHAN_MS: '3000' })
  node.add({ type: 'loop' })
  await node.when(() => node.leasedIds.length === 1, 'leased')
  const pids = worker.slotPids
  await node.close()
  t.equal(await worker.stopped, 'orphaned')
  await until(() => !pids.some(isAlive))
})

t.test('draining', async t => {
  await t.test('finishes what runs and returns what has not started', async t => {
    const node = await openNode(t)
    const worker = await startWorker(t, node.url, { MUSTER_WORKER_SLOTS: '1' })
    for (const id of node.add(...Array.from({ length: 20 }, () => ({ type: 'busy', payload: { json: 0 } }))))
      await node.result(id)
    const gate = join(folder, 'drains')
    const [running, ...others] = node.add(
      { type: 'gated', payload: { json: { gate, blocks: true } } },
      ...[0, 0, 0].map(ms => ({ type: 'busy', payload: { json: ms } })),
    ) as [string, ...string[]]
    await node.when(() => node.leasedIds.length === 4, 'all leased')
    const drained = worker.drain()
    await node.when(() => node.returned.length === others.length, 'what has not started is back')
    await node.when(() => node.heartbeats.some(({ state }) => state === 'draining'), 'it says that it drains')
    writeFileSync(gate, '')
    await drained
    t.equal(await worker.stopped, 'asked')
    t.same((await node.result(running)).value, { json: 'through' })
    t.same(node.returned.toSorted(), others)
    t.ok(node.heartbeats.some(({ state }) => state === 'stopped'))
  })

  await t.test('returns what does not finish in time, after it was stopped', async t => {
    const node = await openNode(t)
    const worker = await startWorker(t, node.url, { MUSTER_WORKER_DRAIN_MS: '100' })
    const file = join(folder, 'drained')
    const begun = join(folder, 'drained begun')
    const ids = node.add({ type: 'patient', payload: { json: { ms: 60_000, file, begun } } }, { type: 'loop' })
    await node.when(() => node.leasedIds.length === 2, 'leased')
    await until(() => existsSync(begun))
    await worker.drain()
    t.same(node.returned.toSorted(), ids)
    t.equal(readFileSync(file, 'utf8'), 'heard the abort\n')
    t.same(worker.slotPids.filter(isAlive), [])
    t.equal(node.completions.length + node.stale.length, 0)
  })

  await t.test('returns also what its slot starts only after the time is over', async t => {
    const node = await openNode(t)
    const worker = await startWorker(t, node.url, { MUSTER_WORKER_SLOTS: '1', MUSTER_WORKER_DRAIN_MS: '1' })
    const [slot] = worker.slotPids as [number]
    process.kill(slot, 'SIGSTOP')
    const ids = node.add({ type: 'loop' })
    await node.when(() => node.leasedIds.length === 1, 'leased')
    const drained = worker.drain()
    await node.when(() => node.heartbeats.some(({ state }) => state === 'draining'), 'it says that it drains')
    // Whenever it wakes, before it is given up or after, its job goes back.
    const woken = setTimeout(() => process.kill(slot, 'SIGCONT'), 700)
    t.teardown(() => clearTimeout(woken))
    await drained
    t.same(node.returned, ids)
    t.notOk(isAlive(slot))
  })

  await t.test('is ordered by a node through a heartbeat', async t => {
    const node = await openNode(t)
    const worker = await startWorker(t, node.url)
    await node.when(() => node.claims.length > 0, 'a claim')
    node.drain()
    t.equal(await worker.stopped, 'ordered')
  })
})

t.test('as a process', async t => {
  await t.test('SIGTERM drains, and the exit code is 0', async t => {
    const node = await openNode(t)
    const child = spawnWorker(t, node, { MUSTER_INSTANCE_ID: 'i-7' })
    const [id] = node.add({ type: 'busy', payload: { json: 500 } }) as [string]
    await node.when(() => node.leasedIds.length === 1, 'leased')
    const slots = childrenOf(child.pid as number)
    child.kill('SIGTERM')
    t.same(await once(child, 'exit'), [0, null])
    t.match(node.completionOf(id)?.value, { json: 500 })
    t.equal(node.heartbeats[0]?.worker.instanceId, 'i-7')
    t.same(slots.filter(isAlive), [])
  })

  await t.test('a second signal stops it at once', async t => {
    const node = await openNode(t)
    const child = spawnWorker(t, node)
    const ids = node.add({ type: 'loop' }, { type: 'loop' })
    await node.when(() => node.leasedIds.length === 2, 'leased')
    child.kill('SIGINT')
    await node.when(() => node.heartbeats.some(({ state }) => state === 'draining'), 'draining')
    child.kill('SIGINT')
    t.same(await once(child, 'exit'), [0, null])
    t.same(node.returned.toSorted(), ids)
  })

  await t.test('SIGKILL leaves no slot behind, not even one in an endless loop', async t => {
    const node = await openNode(t)
    const child = spawnWorker(t, node)
    node.add({ type: 'loop' })
    await node.when(() => node.leasedIds.length === 1, 'leased')
    await until(() => childrenOf(child.pid as number).length === 2)
    const slots = childrenOf(child.pid as number)
    t.ok(slots.every(isAlive))
    child.kill('SIGKILL')
    await until(() => !slots.some(isAlive))
  })
})

t.test('a worker in Python speaks the protocol', async t => {
  const node = await openNode(t)
  node.token = 'py'
  const env = { PATH: process.env.PATH, MUSTER_NODE_URLS: node.url, MUSTER_WORKER_TOKEN: 'py' }
  const child = spawn('python3', [pythonWorker], { env, stdio: ['ignore', 'inherit', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const text = 'to be or not to be'
  const [json, bytes, bad] = node.add(
    { type: 'wordCount', payload: { json: text } },
    { type: 'wordCount', payload: { base64: Buffer.from(text).toString('base64') } },
    { type: 'wordCount', payload: { json: 7 } },
  ) as [string, string, string]
  const blob = node.addWithBlob('wordCount', Buffer.from(`${text} `.repeat(10_000)), 'bytes')
  const broken = node.addWithBlob('wordCount', Buffer.from(text), 'bytes', true)
  t.match((await node.result(json)).value, { json: { to: 2, be: 2, or: 1, not: 1 } })
  t.match((await node.result(bytes)).value, { json: { to: 2 } })
  t.match((await node.result(bad)).error, { code: 'handler_error' })
  t.match((await node.result(blob)).value, { json: { to: 20_000 } })
  t.match((await node.result(broken)).error, { code: 'payload_unreadable' })
  t.match(node.heartbeats[0], { state: 'ready', worker: { slots: 1, types: ['wordCount'] } })
  child.kill('SIGTERM')
  t.same(await once(child, 'exit'), [0, null])
  t.ok(node.heartbeats.some(({ state }) => state === 'stopped'))
})
