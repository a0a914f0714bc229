/** Queues that pause and drain, and leases that run out. */
import t from 'tap'
import { startTestApi, type TestWorker } from '../support/api.ts'
import { one, put, runOut, view } from '../support/job-calls.ts'
import { until } from '../support/until.ts'

const leaseMs = 4000

/** One heartbeat after the other, until that is there. */
async function beatWhile<T>(worker: TestWorker, waiting: Promise<T>): Promise<T> {
  let isOver = false
  const end = (): void => {
    isOver = true
  }
  waiting.then(end, end)
  while (!isOver) await worker.heartbeat([], { waitMs: 500 })
  return await waiting
}

t.test('queues: pause, drain, resume; leases that run out', async t => {
  const api = await startTestApi(t, { MUSTER_LEASE_MS: String(leaseMs) })
  const worker = api.worker()
  await worker.heartbeat()

  await t.test('a paused queue takes jobs and hands out none; a draining one the other way round', async t => {
    t.match((await api.call('POST', '/queues/default/pause')).body, { queue: 'default', state: 'paused' })
    const key = { headers: { 'idempotency-key': 'before-the-drain' }, json: { payload: 1 } }
    const before = await api.call('PUT', '/enqueue?type=noop', key)
    t.strictSame(await worker.claim(), [])
    const waiting = worker.claim(1, 20_000)
    t.match((await api.call('POST', '/queues/default/resume')).body, { state: 'running' })
    const [lease] = await waiting
    t.ok(lease, 'a claim that waits gets it when the queue is resumed')
    t.match((await api.call('POST', '/queues/default/drain')).body, { state: 'draining', running: 1 })
    t.equal((await api.call('PUT', '/enqueue?type=noop', { json: { payload: 1 } })).body.code, 'queue_draining')
    const again = await api.call('PUT', '/enqueue?type=noop', key)
    t.match(again, { status: 200, body: before.body }, 'an answer that was lost can be had again')
    const other = { headers: { 'idempotency-key': 'after-it' }, json: { payload: 1 } }
    t.equal((await api.call('PUT', '/enqueue?type=noop', other)).body.code, 'queue_draining')
    if (lease) await worker.complete(lease, { value: { json: 1 } })
    await api.call('POST', '/queues/default/resume')
    t.equal((await api.call('PUT', '/enqueue?type=noop', { json: { payload: 1 } })).status, 200)
    await worker.complete(await one(worker), { value: { json: 1 } })
    t.match((await api.call('GET', '/queues')).body, {
      queues: [{ queue: 'default', state: 'running', waiting: 0, uncollected: 2 }],
    })
    await api.call('POST', '/pullCompleted?top=9')
  })

  await t.test('a worker that falls silent loses its job to the next; no attempt is spent', async t => {
    await worker.heartbeat()
    const workId = await put(api, 'type=noop&attempts=1')
    const lost = await one(worker)
    const other = api.worker('w2')
    await other.heartbeat()
    const next = await beatWhile(other, one(other, 30_000))
    t.match(next, { workId, attempt: 1 })
    t.not(next.token, lost.token)
    t.match(await view(api, workId), { state: 'running', attemptsMade: 0, lostLeases: 1 })
    const enoughAt = performance.now() + 2 * leaseMs
    while (performance.now() < enoughAt) await other.heartbeat([next], { waitMs: 400 })
    t.match(
      await other.complete(next, { value: { json: 1 } }),
      { results: [{ outcome: 'succeeded' }] },
      'heartbeats kept it over two lease times',
    )
  })

  await t.test('a job that loses its worker again and again is dead', async t => {
    const api = await startTestApi(t, { MUSTER_LEASE_MS: '30000', MUSTER_MAX_LOST_LEASES: '2' })
    const worker = api.worker()
    await worker.heartbeat()
    const workId = await put(api, 'type=noop')
    for (let losses = 0; losses < 2; losses += 1) {
      await one(worker)
      await runOut(api, workId)
    }
    t.strictSame(await worker.claim(), [])
    await until(async () => (await view(api, workId)).state === 'dead')
    t.match((await view(api, workId)).error, { code: 'workers_lost' })
    await api.call('POST', `/jobs/${workId}/retry`)
    t.equal((await one(worker)).workId, workId, 'a replay starts from nothing')
  })
})
