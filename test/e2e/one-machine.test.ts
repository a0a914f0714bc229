/** One machine, end to end: a node as a user starts it, its Redis, its workers; all of them killed in the middle. */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type NodeProcess, processesOf, startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
type Body = any

const octets = { 'content-type': 'application/octet-stream' }
const get = async (node: NodeProcess, path: string): Promise<Body> => await (await fetch(node.url + path)).json()
const put = async (node: NodeProcess, query: string, payload?: unknown): Promise<string> => {
  const json =
    payload === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify({ payload }) }
  const body: Body = await (await fetch(`${node.url}/enqueue?${query}`, { method: 'PUT', ...json })).json()
  if (body['Work ID'] === undefined) throw new Error(JSON.stringify(body))
  return body['Work ID']
}
const pull = async (node: NodeProcess, query: string): Promise<Body[]> =>
  (await (await fetch(`${node.url}/pullCompleted?${query}`, { method: 'POST' })).json()) as Body[]

/** Pulls until there is something. */
const pullSome = async (node: NodeProcess, top: number): Promise<Body[]> => {
  let results: Body[] = []
  await until(async () => {
    results = await pull(node, `top=${top}&waitMs=5000`)
    return results.length > 0
  })
  return results
}

const chain = (data: string, iterations: number): string => {
  let digest = createHash('sha512').update(data).digest()
  for (let done = 1; done < iterations; done += 1) digest = createHash('sha512').update(digest).digest()
  return digest.toString('hex')
}

t.test('a few short jobs of which nothing is known get one worker', async t => {
  const node = await startNodeProcess(t, { MUSTER_MAX_WORKERS: '4', MUSTER_WORKER_SLOTS: '1' })
  const put = async (): Promise<number> =>
    (await fetch(`${node.url}/enqueue?iterations=10`, { method: 'PUT', headers: octets, body: 'hello' })).status
  t.same(await Promise.all(Array.from({ length: 6 }, put)), Array(6).fill(200))
  let collected = 0
  while (collected < 6) collected += (await pullSome(node, 10)).length
  const { decisions } = await get(node, '/fleet/decisions')
  const launches = decisions
    .flatMap(({ actions }: Body) => actions)
    .filter(({ kind }: Body) => kind === 'launch')
    .map(({ count }: Body) => count)
  // What comes after is decided on what was measured.
  t.equal(launches.at(-1), 1, 'the first launch')
})

t.test('from nothing to a value, and back to nothing', async t => {
  const node = await startNodeProcess(t, { MUSTER_IDLE_TIMEOUT_MS: '5000', MUSTER_AUTOSCALE_INTERVAL_MS: '200' })
  t.match(await get(node, '/status'), { Jobs: 0, Workers: 0 }, 'no work, no workers')
  const reply = await fetch(`${node.url}/enqueue?iterations=1000`, { method: 'PUT', headers: octets, body: 'hello' })
  const { 'Work ID': workId } = (await reply.json()) as Body
  t.strictSame(await pullSome(node, 10), [{ 'Work ID': workId, Value: chain('hello', 1000) }])
  t.match(await get(node, `/jobs/${workId}`), { state: 'succeeded', attemptsMade: 1, collection: 'acked' })
  t.match(await get(node, '/status'), { Workers: 1 })

  const counted = await put(node, 'type=countToThree')
  t.match(await pullSome(node, 1), [{ 'Work ID': counted, Value: 3 }])
  t.strictSame((await get(node, `/jobs/${counted}/logs`)).lines, ['one', 'two', 'three'])

  const endless = await put(node, 'type=sleep', { ms: 600_000 })
  await until(async () => (await get(node, `/jobs/${endless}`)).state === 'running')
  await fetch(`${node.url}/jobs/${endless}`, { method: 'DELETE' })
  t.match(await get(node, `/jobs/${endless}`), { state: 'cancelled' })

  await until(async () => (await get(node, '/status')).Workers === 0)
  const { decisions } = await get(node, '/fleet/decisions')
  const actions = decisions.flatMap((decision: Body) =>
    decision.actions.map((action: Body) => `${action.kind} ${action.reason}`),
  )
  t.ok(
    actions.some((action: string) => /^launch /.test(action)),
    'a reason for the launch',
  )
  t.ok(
    actions.some((action: string) => action === 'drain idle'),
    'a reason for the end',
  )
  node.kill('SIGINT')
  t.equal(await node.ended(), 0)
  t.strictSame(await processesOf(node.dataDir), [], 'Ctrl-C leaves no process behind')
})

t.test('handlers of the user: each fault costs only its own attempt', async t => {
  const file = join(t.testdir(), 'my-handlers.js')
  await writeFile(
    file,
    `import { defineHandler } from 'muster'
export const crash = defineHandler({ type: 'crash', handle: () => process.abort() })
export const loop = defineHandler({ type: 'loop', handle: () => { for (;;); } })
export const heap = defineHandler({ type: 'heap', handle: () => { const all = []; for (;;) all.push(new Array(100000).fill(Math.random())) } })
export const greet = defineHandler({ type: 'greet', payload: { type: 'object', required: ['name'], properties: { name: { type: 'string' } } },
  handle: ({ name }, { attempt }) => { if (attempt === 1) throw new Error('not yet'); return 'hello ' + name } })
export const large = defineHandler({ type: 'large', handle: data => data })
`,
  )
  const node = await startNodeProcess(
    t,
    { MUSTER_BACKOFF_MS: '10', MUSTER_WORKER_HEAP_MB: '64', MUSTER_WORKER_SLOTS: '2', MUSTER_MAX_WORKERS: '1' },
    ['--handlers', file],
  )
  const refused = await fetch(`${node.url}/enqueue?type=greet`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: '{"payload":{}}',
  })
  t.match(
    await refused.json(),
    { code: 'payload_invalid', detail: /name/ },
    "the user's own schema is checked when submitting",
  )
  const greeted = await put(node, 'type=greet', { name: 'you' })
  const bad = {
    crash: await put(node, 'type=crash&attempts=1'),
    loop: await put(node, 'type=loop&attempts=1&timeoutMs=300'),
    heap: await put(node, 'type=heap&attempts=1'),
  }
  const good = await Promise.all(Array.from({ length: 20 }, (_, index) => put(node, 'type=noop', index)))
  await until(async () => {
    const { Dead, Uncollected } = await get(node, '/status')
    return Dead === 3 && Uncollected === 21
  })
  const values = await pull(node, 'top=100')
  t.strictSame(values.map(entry => entry['Work ID']).sort(), [greeted, ...good].sort(), 'all others are done')
  t.match(
    values.find(entry => entry['Work ID'] === greeted),
    { Value: 'hello you' },
  )
  t.match(await get(node, `/jobs/${greeted}`), { attemptsMade: 2 })
  t.match((await get(node, `/jobs/${bad.crash}`)).error, { code: 'crash' })
  t.match((await get(node, `/jobs/${bad.loop}`)).error, { code: 'timeout' })
  t.match((await get(node, `/jobs/${bad.heap}`)).error, { code: 'out_of_memory' })

  const data = Buffer.alloc(3_000_000, 'muster')
  await fetch(`${node.url}/enqueue?type=large`, { method: 'PUT', headers: octets, body: data })
  const [entry] = await pullSome(node, 1)
  const bytes = Buffer.from(await (await fetch(node.url + entry['Value URL'])).arrayBuffer())
  t.ok(data.equals(bytes), 'a large payload comes back as a large result')
})

t.test('node, worker and Redis are killed in the middle: every value arrives, and none after its ack', async t => {
  const node = await startNodeProcess(t, {
    MUSTER_MAX_WORKERS: '2',
    MUSTER_WORKER_SLOTS: '2',
    MUSTER_LEASE_MS: '3000',
  })
  const expected = new Map<string, string>()
  const seen = new Map<string, string>()
  const total = 1500
  let submitted = 0

  const submit = async (client: number): Promise<void> => {
    while (submitted < total) {
      const number = submitted++
      const key = `${client}-${number}`
      // While the node is away: again, with the same key.
      await until(async () => {
        try {
          const reply = await fetch(`${node.url}/enqueue?iterations=${1 + (number % 300)}`, {
            method: 'PUT',
            headers: { ...octets, 'idempotency-key': key },
            body: `data ${number}`,
          })
          if (reply.status !== 200) return false
          expected.set(((await reply.json()) as Body)['Work ID'], chain(`data ${number}`, 1 + (number % 300)))
          return true
        } catch {
          return false
        }
      })
    }
  }
  const acked = new Set<string>()
  const twice: string[] = []
  const collect = async (): Promise<void> => {
    while (seen.size < total) {
      // Leased and acked by the client: what is not acked in time comes again, and what is acked does not.
      const reply = await fetch(`${node.url}/pullCompleted?top=50&waitMs=1000&leaseMs=10000`, {
        method: 'POST',
      }).catch(() => undefined)
      const results: Body = reply?.status === 200 ? await reply.json().catch(() => []) : []
      if (results.length === 0) await delay(20) // pause: while the node is away, where nothing can be waited for
      for (const { 'Work ID': workId, Value } of results) {
        if (acked.has(workId)) twice.push(workId)
        seen.set(workId, Value)
      }
      if (results.length === 0) continue
      const workIds = results.map((entry: Body) => entry['Work ID'])
      await until(async () => {
        const reply = await fetch(`${node.url}/pullCompleted/ack`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ workIds }),
        }).catch(() => undefined)
        return reply?.status === 200
      })
      for (const workId of workIds) acked.add(workId)
    }
  }
  const work = Promise.all([submit(1), submit(2), submit(3), collect(), collect()])

  const reached = async (count: number): Promise<void> => await until(() => seen.size >= count)
  await reached(150)
  const workers = (await processesOf(node.dataDir)).filter(({ command }) => /cli\.js worker/.test(command))
  t.ok(workers.length > 0)
  if (workers[0]) process.kill(workers[0].pid, 'SIGKILL')
  await reached(450)
  process.kill(await node.redisPid(), 'SIGKILL')
  await reached(800)
  node.kill('SIGKILL')
  await node.ended()
  await node.restart()
  await work

  t.equal(expected.size, total)
  for (const [workId, value] of expected) if (seen.get(workId) !== value) t.fail(`${workId}: ${seen.get(workId)}`)
  t.equal(seen.size, total)
  t.strictSame(twice, [])
  const { jobs } = await get(node, '/jobs?state=dead')
  t.strictSame(jobs, [], 'no attempt was spent on the killed')
  node.kill('SIGTERM')
  t.equal(await node.ended(), 0)
  t.strictSame(await processesOf(node.dataDir), [])
})

const start = async (t: Test, environment: Record<string, string>): Promise<string> =>
  await startNodeProcess(t, environment).then(
    () => 'started',
    (error: Error) => error.message,
  )

t.test('a node that cannot start says why', async t => {
  const faults = await start(t, { MUSTER_MAX_WORKERS: 'many', MUSTER_LEASE_MS: '0' })
  t.match(faults, /MUSTER_MAX_WORKERS must be a whole number/)
  t.match(faults, /MUSTER_LEASE_MS must be a whole number/, 'all faults at once')
  t.match(await start(t, { MUSTER_REDIS_URL: 'http://nowhere' }), /MUSTER_REDIS_URL must look like redis:/)
  t.match(await start(t, { MUSTER_HANDLERS: '/nonexistent.js' }), /nonexistent\.js: there is no such file/)
  const node = await startNodeProcess(t, {})
  t.match(await start(t, { MUSTER_PORT: new URL(node.url).port }), /Port \d+ is taken/)
  t.match(await start(t, { MUSTER_DATA_DIR: node.dataDir }), /data directory/)
})
