/** Attempts that have a process of their own: nothing of one reaches the next. */
import { existsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import t from 'tap'
import { keptLog, startWorker } from '../support/agent.ts'
import type { FakeJob, FakeNode } from '../support/fake-node.ts'
import { isAlive } from '../support/is-alive.ts'
import { startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

interface Found {
  readonly pid: number
  readonly global: string | null
  readonly number?: string
  readonly folder: string
  readonly child: number
}

const run = async (node: FakeNode, job: FakeJob): Promise<Found> => {
  const { value, error } = await node.result(node.add(job)[0] as string)
  if (error !== undefined) throw new Error(JSON.stringify(error))
  return (value as { json: Found }).json
}

t.test('a type with isolation: process', async t => {
  const { node, worker } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
  const first = await run(node, { type: 'isolated' })
  const second = await run(node, { type: 'isolated' })
  t.not(first.pid, second.pid)
  for (const found of [first, second]) {
    t.match(found, { global: null, number: undefined })
    t.match(basename(found.folder), /^muster-attempt-/, 'a folder of its own for temporary files')
    await until(() => !isAlive(found.pid) && !isAlive(found.child) && !existsSync(found.folder))
  }
  t.not(first.folder, second.folder)

  const shared = await run(node, { type: 'traces' })
  const again = await run(node, { type: 'traces' })
  t.equal(shared.pid, again.pid, 'other types share a slot')
  t.match(again, { global: 'left', number: 'left', folder: tmpdir() })
  t.ok(worker.slotPids.includes(shared.pid))

  const after = await run(node, { type: 'isolated' })
  t.not(after.pid, shared.pid, 'a slot that has run a job is not taken for it')
  t.match(after, { global: null, number: undefined })
})

t.test('a queue, or a worker, where all attempts are isolated', async t => {
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
  const first = await run(node, { type: 'traces', isolation: 'process' })
  const second = await run(node, { type: 'traces', isolation: 'process' })
  t.not(first.pid, second.pid)
  t.equal(second.global, null)

  const own = await startWorker(t, { MUSTER_WORKER_SLOTS: '1', MUSTER_ISOLATION: 'process' })
  const third = await run(own.node, { type: 'traces' })
  const fourth = await run(own.node, { type: 'traces' })
  t.not(third.pid, fourth.pid)
  t.equal(fourth.global, null)
})

t.test(
  'the next process starts while an attempt runs, and no more attempts run at once than there are slots',
  async t => {
    const { node, worker } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
    const gate = join(t.testdir({}), 'gate')
    const [first, second] = node.add(
      { type: 'isolated', payload: { json: { gate } } },
      { type: 'isolated', payload: { json: {} } },
    ) as [string, string]
    await node.when(() => node.leasedIds.includes(first), 'the first one runs')
    await until(() => worker.slotPids.length === 2)
    t.notOk(node.completions.some(({ workId }) => workId === second))
    writeFileSync(gate, '')
    const [one, two] = [await node.result(first), await node.result(second)]
    t.not((one.value as { json: Found }).json.pid, (two.value as { json: Found }).json.pid)
    await until(() => worker.slotPids.length === 1)
  },
)

t.test('a crash ends its own process and no other', async t => {
  const { log, lines } = keptLog()
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '2' }, log)
  const gate = join(t.testdir({}), 'gate')
  const [other] = node.add({ type: 'isolated', payload: { json: { gate } } }) as [string]
  await node.when(() => node.leasedIds.includes(other), 'the other one is there')
  const [crashed] = node.add({ type: 'isolated', payload: { json: { end: 'crash' } } }) as [string]
  t.match((await node.result(crashed)).error, { code: 'crash', message: /SIGSEGV/ })
  t.ok(lines.some(({ msg, reason }) => msg === 'a slot ended' && /SIGSEGV/.test(String(reason))))
  writeFileSync(gate, '')
  t.equal((await node.result(other)).error, undefined)
  t.match(await run(node, { type: 'isolated' }), { global: null })
})

t.test('what is fetched ahead, and what runs alone, is isolated as well', async t => {
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '2' })
  for (let slot = 0; slot < 2; slot += 1) await run(node, { type: 'traces' })
  const text = Buffer.from(JSON.stringify({ fill: 'x'.repeat(100_000) }))
  const fetched = await node.result(node.addWithBlob('isolated', text, 'json'))
  t.match(fetched.value, { json: { global: null } })
  await run(node, { type: 'traces' })
  t.match(await run(node, { type: 'isolated', exclusive: true }), { global: null })
  const broken = await node.result(node.addWithBlob('isolated', text, 'json', true))
  t.equal(broken.error?.code, 'payload_unreadable')
  t.match(await run(node, { type: 'isolated' }), { global: null })
})

t.test('many of both kinds, short ones, each end once', async t => {
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '2' })
  const jobs = Array.from({ length: 40 }, (_, index) => ({ type: index % 4 === 0 ? 'isolated' : 'echo' }))
  const ids = node.add(...jobs)
  const results = await Promise.all(ids.map(id => node.result(id)))
  t.same(
    results.flatMap(({ error }) => error ?? []),
    [],
  )
  const pids = results.flatMap(({ value }) => (value as { json: Found | null }).json?.pid ?? [])
  t.equal(new Set(pids).size, 10, 'ten isolated ones, ten processes')
  t.equal(node.completions.length, 40)
})

t.test('a queue of muster.yaml and a type of a node, as users declare them', async t => {
  const folder = t.testdir({
    'muster.yaml': 'queues:\n  strangers: { isolation: process, slots: 1, maxWorkers: 1 }\n',
    'handlers.js': `import { defineHandler } from 'muster'
const handle = () => process.pid
export const own = defineHandler({ type: 'own', isolation: 'process', handle })
export const any = defineHandler({ type: 'any', handle })`,
  })
  const node = await startNodeProcess(
    t,
    {
      MUSTER_CONFIG_FILE: join(folder, 'muster.yaml'),
      MUSTER_WORKER_SLOTS: '1',
      MUSTER_MAX_WORKERS: '1',
      MUSTER_AUTOSCALE_INTERVAL_MS: '100',
    },
    ['--handlers', join(folder, 'handlers.js')],
  )
  const pidOf = async (type: string, queue: string): Promise<number> => {
    const put = await fetch(`${node.url}/enqueue?type=${type}&queue=${queue}`, { method: 'PUT' })
    const { 'Work ID': id } = (await put.json()) as { 'Work ID': string }
    let pid: number | undefined
    await until(async () => {
      const reply = await fetch(`${node.url}/jobs/${id}/result`)
      pid = reply.status === 200 ? ((await reply.json()) as { value: number }).value : undefined
      return pid !== undefined
    })
    return pid as unknown as number
  }
  const twice = async (type: string, queue: string): Promise<number> =>
    new Set([await pidOf(type, queue), await pidOf(type, queue)]).size
  t.equal(await twice('any', 'default'), 1, 'one process')
  t.equal(await twice('own', 'default'), 2, 'the type asks for it')
  t.equal(await twice('any', 'strangers'), 2, 'the queue asks for it')

  const { types } = (await (await fetch(`${node.url}/types`)).json()) as {
    types: { type: string; isolation: string }[]
  }
  const isolation = Object.fromEntries(types.map(type => [type.type, type.isolation]))
  t.match(isolation, { own: 'process', any: 'slot', noop: 'slot' })
})

t.test('an isolation that there is not is refused, with the place', async t => {
  const file = join(
    t.testdir({ 'handlers.mjs': "export const odd = { type: 'odd', isolation: 'cage', handle: () => 1 }" }),
    'handlers.mjs',
  )
  const { loadHandlers } = await import('../../src/handlers/catalogue.ts')
  await t.rejects(loadHandlers(file), { message: /"odd".* takes "process" as its isolation, or none/ })
})
