/** The worker with real slots against a node made of memory: what jobs may do, and what it costs. */
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t from 'tap'
import { StartupError } from '../../src/errors.ts'
import { Worker } from '../../src/worker/agent/agent.ts'
import { describeHandlers } from '../../src/worker/slots/load-bundle.ts'
import { badHandlers, settingsFor, startWorker } from '../support/agent.ts'
import { FakeNode, sha256 } from '../support/fake-node.ts'
import { isAlive } from '../support/is-alive.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'muster-agent-'))
const log = pino({ level: 'silent' })
process.env.MUSTER_WORKER_TOKEN = 'secret'

t.test('an ordinary worker', async t => {
  const { node, worker } = await startWorker(t)

  await t.test('says who it is before it claims', async t => {
    await node.when(() => node.claims.length > 0, 'a claim')
    const hello = node.heartbeats[0]
    t.match(hello, {
      state: 'ready',
      leases: [],
      worker: { workerId: worker.workerId, queue: 'default', slots: 2, instanceId: 'i-1' },
    })
    t.ok(hello?.worker.types.includes('sha512') && hello.worker.types.includes('echo'))
  })

  await t.test('hands payloads of each form to handlers, and values back', async t => {
    const bytes = Buffer.from([0, 255, 1])
    const [json, raw, none, nothing] = node.add(
      { type: 'echo', payload: { json: { ü: [1, null] } } },
      { type: 'echo', payload: { base64: bytes.toString('base64') } },
      { type: 'echo' },
      { type: 'odd' },
    ) as [string, string, string, string]
    t.same((await node.result(json)).value, { json: { ü: [1, null] } })
    t.same((await node.result(raw)).value, { base64: bytes.toString('base64') })
    t.same((await node.result(none)).value, { json: null })
    t.same((await node.result(nothing)).value, { json: null }, 'undefined is null')
  })

  await t.test('streams large payloads in and large values out', async t => {
    const bytes = Buffer.alloc(5_000_000, 'abc')
    const text = JSON.stringify('y'.repeat(100_000))
    const byBytes = node.addWithBlob('echo', bytes, 'bytes')
    const byJson = node.addWithBlob('echo', Buffer.from(text), 'json')
    const [made] = node.add({ type: 'large', payload: { json: { bytes: 20_000, json: true } } }) as [string]
    t.match((await node.result(byBytes)).value, { blob: { kind: 'bytes', bytes: bytes.length, sha256: sha256(bytes) } })
    t.ok(node.uploads.get(byBytes)?.bytes.equals(bytes))
    t.match((await node.result(byJson)).value, { blob: { kind: 'json' } })
    t.equal(node.uploads.get(byJson)?.bytes.toString(), text)
    await node.result(made)
    t.equal(node.uploads.get(made)?.bytes.length, 20_002)
  })

  await t.test('refuses a payload that is not what was submitted', async t => {
    const broken = node.addWithBlob('echo', Buffer.alloc(70_000, 1), 'bytes', true)
    t.match((await node.result(broken)).error, { code: 'payload_unreadable', message: /SHA-256/ })
  })

  await t.test('tells handler errors with their words', async t => {
    const [boom, final, unknown, bigint, cycle, func] = node.add(
      { type: 'boom' },
      { type: 'boom', payload: { json: 'final' } },
      { type: 'nobody-has-this' },
      ...['bigint', 'cycle', 'function'].map(what => ({ type: 'odd', payload: { json: what } })),
    ) as [string, string, string, string, string, string]
    t.match((await node.result(boom)).error, {
      code: 'handler_error',
      message: 'boom',
      stack: /worker-handlers/,
      retryable: undefined,
    })
    t.match((await node.result(final)).error, { code: 'handler_error', message: 'never again', retryable: false })
    t.match((await node.result(unknown)).error, { code: 'type_unsupported' })
    t.match((await node.result(bigint)).error, { code: 'handler_error', message: /JSON.*BigInt/ })
    t.match((await node.result(cycle)).error, { code: 'handler_error', message: /JSON.*circular/ })
    t.match((await node.result(func)).error, { code: 'handler_error', message: /JSON.*function/ })
  })

  await t.test('keeps the token from handlers', async t => {
    const [id] = node.add({ type: 'env' }) as [string]
    const value = (await node.result(id)).value as { json: string[] }
    t.ok(value.json.includes('PATH'))
    t.notOk(value.json.includes('MUSTER_WORKER_TOKEN'))
  })

  await t.test('passes progress and log lines on in order, and caps them', async t => {
    const gate = join(folder, 'chatty')
    const [few, many] = node.add(
      { type: 'chatty', payload: { json: { lines: 40, pauseMs: 20, gate } } },
      { type: 'chatty', payload: { json: { lines: 1500, pauseMs: 0 } } },
    ) as [string, string]
    await node.when(() => (node.progress.get(few)?.length ?? 0) >= 2, 'progress')
    t.notOk(node.completionOf(few), 'while it runs')
    t.match(node.progress.get(few)?.[0], { fraction: Number, note: /^at \d+$/ })
    writeFileSync(gate, '')
    await node.result(few)
    t.same(
      node.logs.get(few),
      Array.from({ length: 40 }, (_, line) => `line ${line}`),
    )
    await node.result(many)
    t.equal(node.logs.get(many)?.length, 1001)
    t.equal(node.logs.get(many)?.[999], 'line 999')
    t.equal(node.logs.get(many)?.at(-1), '… 500 more lines dropped')
  })

  await t.test('runs thousands of short jobs in few calls', async t => {
    const before = { calls: node.completeCalls, count: node.completions.length }
    node.add(...Array.from({ length: 5000 }, () => ({ type: 'noop' })))
    await node.when(() => node.completions.length === before.count + 5000, '5000 results')
    t.ok(node.completeCalls - before.calls < 1000, `${node.completeCalls - before.calls} calls`)
    // What waited too long came back, and was done later.
    t.equal(node.stale.length, 0)
  })
})

t.test('each of these costs only its own attempt', async t => {
  const { node } = await startWorker(t, { MUSTER_WORKER_HEAP_MB: '64' })
  const bad: [type: string, expected: { code: string; message: RegExp }, timeoutMs?: number][] = [
    ['crash', { code: 'crash', message: /SIGSEGV/ }],
    ['leave', { code: 'crash', message: /exit code 7/ }],
    ['reject', { code: 'handler_error', message: /unhandled rejection: nobody listens/ }],
    ['hog', { code: 'out_of_memory', message: /64 MB/ }],
    ['loop', { code: 'timeout', message: /200 ms/ }, 200],
  ]
  for (const [type, expected, timeoutMs] of bad) {
    await t.test(type, async t => {
      const [first, culprit, ...others] = node.add(
        { type: 'noop' },
        { type, ...(timeoutMs === undefined ? {} : { timeoutMs }) },
        ...Array.from({ length: 5 }, () => ({ type: 'noop' })),
      ) as [string, string, ...string[]]
      t.match((await node.result(culprit)).error, expected)
      for (const id of [first, ...others]) t.equal((await node.result(id)).error, undefined)
      if (type === 'crash') t.ok(node.logs.get(culprit)?.includes('these are my last words'))
    })
  }
})

t.test('a crash in the middle of a batch re-runs none of the done ones', async t => {
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
  const file = join(folder, 'batch')
  const job = (name: string, crash = false) => ({ type: 'count', payload: { json: { file, name, crash } } })
  // So that it knows how short they are.
  for (const id of node.add(job('warm'), job('warm'), job('warm'))) await node.result(id)
  writeFileSync(file, '')
  const names = Array.from({ length: 40 }, (_, index) => `n${index}`)
  const ids = node.add(...names.map(name => job(name, name === 'n20')))
  for (const id of ids) await node.result(id)
  // Those behind the crash may come back to the node first, and then run in another order.
  t.same(readFileSync(file, 'utf8').trim().split('\n').toSorted(), names.toSorted(), 'each started once')
  t.match(node.completionOf(ids[20] as string)?.error, { code: 'crash' })
  t.equal(ids.filter(id => node.completionOf(id)?.error !== undefined).length, 1)
})

t.test('a long job does not hold up short ones that were sent behind it', async t => {
  const { node } = await startWorker(t)
  for (const id of node.add(...Array.from({ length: 20 }, () => ({ type: 'busy', payload: { json: 0 } }))))
    await node.result(id)
  const [long, ...short] = node.add(
    ...[1500, ...Array.from({ length: 30 }, () => 0)].map(ms => ({ type: 'busy', payload: { json: ms } })),
  ) as [string, ...string[]]
  // Its slot hears no recall for a second; the other slot takes over, or the node gets them back.
  await node.when(
    () => short.every(id => node.completionOf(id) !== undefined || node.returned.includes(id)),
    'the short ones',
  )
  await node.result(long)
  t.equal(node.stale.length, 0)
})

t.test('a cancel reaches the job that runs', async t => {
  const { node, worker } = await startWorker(t)
  const file = join(folder, 'cancelled')
  const begun = ['cancelled patient', 'cancelled loop'].map(name => join(folder, name))
  const [patient, loop] = node.add(
    { type: 'patient', payload: { json: { ms: 60_000, file, begun: begun[0] } } },
    { type: 'loop', payload: { json: { begun: begun[1] } } },
  ) as [string, string]
  await until(() => begun.every(name => existsSync(name)))
  const before = worker.slotPids
  node.cancel(patient)
  await until(() => readOr(file).includes('heard the abort'))
  node.cancel(loop)
  await until(() => before.some(pid => !isAlive(pid)))
  const [after] = node.add({ type: 'noop' }) as [string]
  await node.result(after)
  t.equal(node.completions.length, 1, 'nothing is said about cancelled jobs')
  t.equal(node.stale.length, 0)
})

t.test('what a handler started goes with its slot', async t => {
  const { node } = await startWorker(t)
  const file = join(folder, 'grandchild')
  const [id] = node.add({ type: 'parent', payload: { json: { file } }, timeoutMs: 300 }) as [string]
  t.match((await node.result(id)).error, { code: 'timeout' })
  const pid = Number(readFileSync(file, 'utf8'))
  await until(() => !isAlive(pid))
})

t.test('handlers', async t => {
  await t.test('are described with the schemas of their payloads', async t => {
    const described = await describeHandlers(badHandlers)
    t.ok(described.some(({ type }) => type === 'echo'))
    t.ok(described.some(({ payload }) => payload !== undefined))
  })

  await t.test('that cannot be loaded end the start with clear words', async t => {
    const file = join(folder, 'broken.mjs')
    writeFileSync(file, 'throw new Error("not today")')
    const node = new FakeNode()
    await node.open()
    t.teardown(async () => await node.close())
    const worker = new Worker({ settings: settingsFor(node, { MUSTER_HANDLERS: file }), queue: 'default', log })
    await t.rejects(worker.start(), { name: 'StartupError', message: /broken\.mjs.*not today/ })
    await t.rejects(describeHandlers(file), StartupError)
    writeFileSync(file, 'export const a = 1\nexport const b = {\n')
    await t.rejects(describeHandlers(file), {
      name: 'StartupError',
      message: /broken\.mjs:\d+\nSyntaxError: Unexpected/,
    })
  })
})

function readOr(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
