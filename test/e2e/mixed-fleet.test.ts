/** Workers with different handlers, in two languages, in one queue: every value is right, and no attempt is lost. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))
const python = fileURLToPath(new URL('../../examples/worker.py', import.meta.url))
const jobsOfEach = 40

t.test('a mixed fleet', async t => {
  const node = await startNodeProcess(t, { MUSTER_FLEET: 'none', MUSTER_SHUTDOWN_GRACE_MS: '0' })
  // biome-ignore lint/suspicious/noExplicitAny: whatever the API answers
  const call = async (method: string, path: string, body?: object): Promise<any> => {
    const reply = await fetch(node.url + path, {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${await reply.text()}`)
    return await reply.json()
  }
  const start = (command: string, args: string[]): void => {
    const env = { ...process.env, MUSTER_NODE_URLS: node.url, MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_HANDLERS: '' }
    const child = spawn(command, args, { env, stdio: 'ignore' })
    t.teardown(() => child.kill('SIGKILL'))
  }
  // A type becomes known with the first worker that declares it.
  const stranger = { workerId: 'stranger', queue: 'default', slots: 1, types: ['nobodysType', 'wordCount'] }
  await call('POST', '/workers/heartbeat', { worker: stranger, state: 'stopped', leases: [] })
  const orphan = (await call('PUT', '/enqueue?type=nobodysType', { payload: 1 }))['Work ID']
  t.match(await call('GET', `/jobs/${orphan}`), { state: 'waiting', waitsFor: { reason: 'no_worker' } })

  start('python3', [python])
  start(process.execPath, [cli, 'worker'])
  await until(async () => (await call('GET', '/status')).Workers === 2)
  const expected = new Map<string, unknown>()
  for (let index = 0; index < jobsOfEach; index += 1) {
    const text = `word${index} twice twice`
    const counted = (await call('PUT', '/enqueue?type=wordCount', { payload: text }))['Work ID']
    expected.set(counted, { [`word${index}`]: 1, twice: 2 })
    const data = Buffer.from(text)
    const hashed = (await call('PUT', '/enqueue?iterations=1', { data: data.toString('base64') }))['Work ID']
    expected.set(hashed, createHash('sha512').update(data).digest('hex'))
  }
  const got = new Map<string, unknown>()
  await until(async () => {
    for (const { 'Work ID': workId, Value } of await call('POST', '/pullCompleted?top=100')) got.set(workId, Value)
    return got.size === expected.size
  })
  t.strictSame(got, expected, 'every value is right')
  for (const workId of expected.keys()) {
    const { attemptsMade, lostLeases } = await call('GET', `/jobs/${workId}`)
    t.strictSame([attemptsMade, lostLeases], [1, 0])
  }
  t.match(await call('GET', `/jobs/${orphan}`), {
    state: 'waiting',
    attemptsMade: 0,
    waitsFor: { reason: 'no_worker_for_type', explanation: /nobodysType/ },
  })
  t.strictSame((await call('GET', '/health/checks')).withoutWorker, [
    { queue: 'default', type: 'nobodysType', waitingCount: 1 },
  ])
  // It declares a type that it does not run after all: no attempt is spent, and it does not get the type again.
  const liar = { workerId: 'liar', queue: 'default', slots: 1, types: ['nobodysType'] }
  await call('POST', '/workers/heartbeat', { worker: liar, state: 'ready', leases: [] })
  const who = { workerId: 'liar', queue: 'default' }
  const [lease] = (await call('POST', '/workers/claim', { ...who, max: 1 })).jobs
  t.equal(lease.workId, orphan)
  const { workId, token, type } = lease
  const failed = { workId, token, type, durationMs: 0, error: { code: 'type_unsupported', message: 'no' } }
  const reply = await call('POST', '/workers/complete', { ...who, results: [failed], claim: 1 })
  t.strictSame([reply.results, reply.jobs], [[{ workId, outcome: 'requeued' }], []])
  t.strictSame((await call('POST', '/workers/claim', { ...who, max: 1 })).jobs, [])
  t.match(await call('GET', `/jobs/${orphan}`), {
    state: 'waiting',
    attemptsMade: 0,
    waitsFor: { reason: 'no_worker_for_type' },
  })
})
