import { randomBytes } from 'node:crypto'
import t from 'tap'
import type { Lease } from '../../src/contract/worker-protocol.ts'
import { startTestApi, type TestApi, type TestWorker } from '../support/api.ts'
import { until } from '../support/until.ts'

const json = (payload: unknown) => ({ json: { payload } })
const put = async (api: TestApi, query: string, payload: unknown = null): Promise<string> => {
  const reply = await api.call('PUT', `/enqueue?${query}`, json(payload))
  if (reply.status !== 200) throw new Error(JSON.stringify(reply.body))
  return reply.body['Work ID']
}
const one = async (worker: TestWorker, waitMs = 0): Promise<Lease> => {
  const [lease] = await worker.claim(1, waitMs)
  if (lease === undefined) throw new Error('no job to claim')
  return lease
}
const view = async (api: TestApi, workId: string) => (await api.call('GET', `/jobs/${workId}`)).body
const failure = { error: { code: 'handler_error', message: 'no luck', stack: 'Error: no luck\n    at here' } }

t.test('the life of a job', async t => {
  const api = await startTestApi(t, { MUSTER_BACKOFF_MS: '20' })
  const worker = api.worker()
  await worker.heartbeat()

  await t.test('each state shows, with its times', async t => {
    const workId = await put(api, 'type=noop&attempts=2', { a: 1 })
    t.match(await view(api, workId), {
      workId,
      state: 'waiting',
      queue: 'default',
      type: 'noop',
      attempts: 2,
      attemptsMade: 0,
      createdAt: /^\d{4}-.*Z$/,
    })
    t.equal((await api.call('GET', `/jobs/${workId}/result`)).body.code, 'result_not_ready')
    const lease = await one(worker)
    t.match(lease, {
      workId,
      type: 'noop',
      attempt: 1,
      attempts: 2,
      payload: { json: { a: 1 } },
      timeoutMs: 86_400_000,
    })
    t.match(await view(api, workId), { state: 'running', workerId: 'w1', startedAt: String })
    const progress = [{ workId, token: lease.token, fraction: 0.5, note: 'half' }]
    await worker.heartbeat([lease], { progress, logs: [{ workId, token: lease.token, lines: ['first', 'second'] }] })
    t.match((await view(api, workId)).progress, { fraction: 0.5, note: 'half' })
    t.match(await worker.complete(lease, { ...failure, logs: ['third'] }), {
      results: [{ workId, outcome: 'retrying' }],
    })
    t.match(await view(api, workId), {
      state: /delayed|waiting/,
      attemptsMade: 1,
      error: { code: 'handler_error', message: 'no luck', stack: /at here/ },
    })
    const again = await one(worker, 5000)
    t.match(again, { workId, attempt: 2 })
    t.not(again.token, lease.token, 'every attempt has a token of its own')
    t.match(await worker.complete(again, { value: { json: { done: true } } }), { results: [{ outcome: 'succeeded' }] })
    t.match(await view(api, workId), {
      state: 'succeeded',
      attemptsMade: 2,
      collection: 'uncollected',
      finishedAt: String,
    })
    t.strictSame((await api.call('GET', `/jobs/${workId}/logs`)).body, {
      workId,
      lines: ['first', 'second', 'third'],
      count: 3,
    })
    t.strictSame((await api.call('GET', `/jobs/${workId}/logs?start=1&limit=1`)).body.lines, ['second'])
    t.strictSame((await api.call('GET', `/jobs/${workId}/result`)).body, { workId, value: { done: true } })
    t.strictSame((await api.call('POST', '/pullCompleted?top=9')).body, [{ 'Work ID': workId, Value: { done: true } }])
  })

  await t.test('after its last attempt a job is dead; it can be listed, pulled and replayed', async t => {
    const workId = await put(api, 'type=noop&attempts=1')
    t.match(await worker.complete(await one(worker), failure), { results: [{ outcome: 'dead' }] })
    t.match(await view(api, workId), { state: 'dead', attemptsMade: 1 })
    t.equal((await api.call('GET', `/jobs/${workId}/result`)).body.code, 'job_dead')
    t.strictSame(
      (await api.call('GET', '/jobs?state=dead')).body.jobs.map((job: { workId: string }) => job.workId),
      [workId],
    )
    t.strictSame((await api.call('POST', '/pullCompleted?top=9')).body, [], 'a failure is no result')
    t.match((await api.call('POST', '/pullCompleted?top=9&failed=include&leaseMs=60000')).body, [
      { 'Work ID': workId, Error: { code: 'handler_error', message: 'no luck' } },
    ])
    t.strictSame((await api.call('POST', `/jobs/${workId}/retry`)).body, { workId, state: 'waiting' })
    t.equal((await api.call('POST', `/jobs/${workId}/retry`)).body.code, 'job_not_dead')
    t.match(await one(worker).then(lease => worker.complete(lease, { value: { json: 7 } })), {
      results: [{ outcome: 'succeeded' }],
    })
    t.match(await view(api, workId), { state: 'succeeded', attemptsMade: 1 })
    t.strictSame(
      (await api.call('POST', '/pullCompleted?top=9&failed=include')).body,
      [{ 'Work ID': workId, Value: 7 }],
      'once, as a value',
    )
  })

  await t.test(
    'an error that is not worth another try ends the job at once; all dead ones are replayed together',
    async t => {
      const first = await put(api, 'type=noop&attempts=5')
      await worker.complete(await one(worker), { error: { code: 'handler_error', message: 'final', retryable: false } })
      t.match(await view(api, first), { state: 'dead', attemptsMade: 1 })
      t.strictSame((await api.call('POST', '/queues/default/retry')).body, { queue: 'default', retried: 1 })
      await worker.complete(await one(worker), { value: { json: 1 } })
      await api.call('POST', '/pullCompleted?top=9')
    },
  )

  await t.test('delayed and prioritised jobs come in their order', async t => {
    const late = await put(api, 'type=noop&delayMs=300')
    const low = await put(api, 'type=noop&priority=9')
    const high = await put(api, 'type=noop&priority=1')
    const plain = await put(api, 'type=noop')
    t.match(await view(api, late), { state: 'delayed', dueAt: String })
    const leases = await worker.claim(9)
    t.strictSame(
      leases.map(lease => lease.workId),
      [plain, high, low],
    )
    const delayed = await one(worker, 5000)
    t.equal(delayed.workId, late, 'a waiting claim gets it when it is due')
    for (const lease of [...leases, delayed]) await worker.complete(lease, { value: { json: null } })
    await api.call('POST', '/pullCompleted?top=9')
  })

  await t.test('completing and claiming in one call', async t => {
    const ids = [await put(api, 'type=noop'), await put(api, 'type=noop'), await put(api, 'type=noop')]
    const lease = await one(worker)
    const reply = await worker.complete(lease, { value: { json: 1 } }, 2)
    t.strictSame(reply.jobs.map(job => job.workId).sort(), ids.slice(1).sort())
    for (const job of reply.jobs)
      t.match(await worker.complete(job, { value: { json: 1 } }), { results: [{ outcome: 'succeeded' }] })
    t.equal((await api.call('POST', '/pullCompleted?top=9')).body.length, 3)
  })

  await t.test('a completion under an old token is stale, and brings nothing back', async t => {
    const workId = await put(api, 'type=noop')
    const old = await one(worker)
    t.equal(await worker.giveBack([old]), 1)
    t.equal(await worker.giveBack([old]), 0, 'once')
    t.match(await view(api, workId), { state: 'waiting', attemptsMade: 0 })
    const fresh = await one(worker)
    t.match(await worker.complete(old, { value: { json: 'old' } }), { results: [{ outcome: 'stale' }] })
    t.match(await worker.complete(old, failure), { results: [{ outcome: 'stale' }] })
    t.match((await worker.heartbeat([old, fresh])).stop, [{ workId, token: old.token, reason: 'lost' }])
    t.match(await worker.complete(fresh, { value: { json: 'fresh' } }), { results: [{ outcome: 'succeeded' }] })
    t.strictSame((await api.call('POST', '/pullCompleted?top=9')).body, [{ 'Work ID': workId, Value: 'fresh' }])
    t.match(await worker.complete(fresh, { value: { json: 'again' } }), { results: [{ outcome: 'stale' }] })
    t.strictSame((await api.call('POST', '/pullCompleted?top=9')).body, [])
  })

  await t.test('cancelling: waiting, delayed, running, dead, finished', async t => {
    for (const query of ['type=noop', 'type=noop&delayMs=100000', 'type=noop&priority=4']) {
      const workId = await put(api, query)
      t.strictSame((await api.call('DELETE', `/jobs/${workId}`)).body, { workId, state: 'cancelled' })
      t.match(await view(api, workId), { state: 'cancelled', type: 'noop' })
      t.equal((await api.call('GET', `/jobs/${workId}/result`)).body.code, 'job_cancelled')
      t.equal((await api.call('DELETE', `/jobs/${workId}`)).status, 200, 'twice is fine')
    }
    const running = await put(api, 'type=noop')
    const lease = await one(worker)
    const news = worker.heartbeat([lease], { waitMs: 20_000 })
    t.equal((await api.call('DELETE', `/jobs/${running}`)).status, 200)
    t.match((await news).stop, [{ workId: running, reason: 'cancelled' }], 'the open heartbeat says so at once')
    t.match(await worker.complete(lease, { value: { json: 1 } }), { results: [{ outcome: 'stale' }] })
    t.match(await view(api, running), { state: 'cancelled', startedAt: String })
    const done = await put(api, 'type=noop')
    await worker.complete(await one(worker), { value: { json: 1 } })
    t.equal((await api.call('DELETE', `/jobs/${done}`)).body.code, 'job_finished')
    t.equal((await api.call('GET', '/jobs?state=cancelled')).body.jobs.length, 4)
    t.strictSame(await worker.claim(9), [], 'nothing cancelled is handed out')
    await api.call('POST', '/pullCompleted?top=9')
  })

  await t.test('a cancel that broke off before the job was removed: the job is listed once, as what it is', async t => {
    const gone = await put(api, 'type=noop')
    await api.call('DELETE', `/jobs/${gone}`)
    const kept = await put(api, 'type=noop')
    const { keys } = api.jobs.of('default').queue
    const record = JSON.parse((await api.redis.hget(keys.cancelledData, gone)) as string)
    await api.redis.zadd(keys.cancelled, Date.now(), kept)
    await api.redis.hset(keys.cancelledData, kept, JSON.stringify({ ...record, workId: kept }))
    const { jobs } = (await api.call('GET', '/jobs?limit=1000')).body
    const states = jobs.filter((job: { workId: string }) => job.workId === kept)
    t.match(states, [{ state: 'waiting' }])
    t.equal(states.length, 1)
    await worker.complete(await one(worker), { value: { json: 1 } })
    await api.call('POST', '/pullCompleted?top=9')
    await api.redis.zrem(keys.cancelled, gone, kept)
    await api.redis.hdel(keys.cancelledData, gone, kept)
  })

  await t.test('the same Idempotency-Key is the same job; another request under it is refused', async t => {
    const call = async (query: string, payload: unknown) =>
      await api.call('PUT', `/enqueue?${query}`, { headers: { 'idempotency-key': 'order-17' }, ...json(payload) })
    const replies = await Promise.all([call('type=noop', 1), call('type=noop', 1), call('type=noop', 1)])
    t.equal(new Set(replies.map(reply => reply.body['Work ID'])).size, 1)
    t.equal((await worker.claim(9)).length, 1, 'one job')
    t.equal((await call('type=noop', 2)).body.code, 'idempotency_key_reused')
    t.equal((await call('type=noop&priority=1', 1)).body.code, 'idempotency_key_reused')
    const large = 'x'.repeat(50_000)
    const big = async (payload: string) =>
      await api.call('PUT', '/enqueue?type=noop', { headers: { 'idempotency-key': 'big' }, ...json(payload) })
    const [workId] = [(await big(large)).body['Work ID']]
    t.equal((await big(large)).body['Work ID'], workId)
    t.equal((await big(`${large}!`)).body.code, 'idempotency_key_reused')
    const lease = await one(worker)
    const url = (lease.payload as { blob: { url: string } }).blob.url
    t.equal((await api.call('GET', url)).body, large, 'the first payload is untouched')
    const blobs = []
    for await (const key of api.store.list(0, Date.now() + 1000)) blobs.push(key)
    t.equal(blobs.length, 1, 'nothing else is left in the store')
  })
})

t.test('large payloads and results live outside Redis', async t => {
  const api = await startTestApi(t, { MUSTER_INLINE_BYTES: '1000', MUSTER_MAX_BODY_BYTES: '3000000' })
  const worker = api.worker()
  await worker.heartbeat()
  const data = randomBytes(2_000_000)
  const form = new FormData()
  form.append('data', new Blob([data]), 'file.bin')
  const put = await api.call('PUT', '/enqueue?iterations=1', { body: form })
  t.equal(put.status, 200)
  const lease = await one(worker)
  const { blob } = lease.payload as { blob: { url: string; bytes: number; sha256: string } }
  const got = await api.call('GET', blob.url)
  t.ok(data.equals(got.body))
  t.equal(got.headers.get('content-length'), '2000000')
  t.equal((await api.call('GET', `${blob.url}x`)).body.code, 'lease_lost')
  const upload = async (kind: string, body: Buffer) =>
    await api.call('PUT', `/workers/results/${lease.workId}?kind=${kind}&token=${encodeURIComponent(lease.token)}`, {
      body,
      headers: { 'content-type': 'application/octet-stream' },
    })
  t.equal((await upload('bytes', randomBytes(3_000_001))).body.code, 'body_too_large')
  await worker.complete(lease, { value: (await upload('bytes', data)).body.value })
  t.match((await api.call('POST', '/pullCompleted?top=1')).body, [
    { Value: null, 'Value URL': `/jobs/${lease.workId}/result`, 'Value Bytes': 2_000_000 },
  ])
  const result = await api.call('GET', `/jobs/${lease.workId}/result`)
  t.ok(data.equals(result.body))
  t.match(result.headers.get('repr-digest'), /^sha-256=:.*:$/)

  const payload = { list: Array.from({ length: 500 }, (_, index) => index) }
  const workId = (await api.call('PUT', '/enqueue?type=noop', json(payload))).body['Work ID']
  const second = await one(worker)
  t.strictSame((await api.call('GET', (second.payload as { blob: { url: string } }).blob.url)).body, payload)
  const value = (
    await api.call('PUT', `/workers/results/${workId}?kind=json&token=${encodeURIComponent(second.token)}`, {
      body: JSON.stringify(payload),
      headers: { 'content-type': 'application/octet-stream' },
    })
  ).body.value
  await worker.complete(second, { value })
  t.strictSame((await api.call('GET', `/jobs/${workId}/result`)).body, { workId, value: payload })
  t.equal(
    (
      await api.call('PUT', '/enqueue?iterations=1', {
        body: randomBytes(3_000_001),
        headers: { 'content-type': 'application/octet-stream' },
      })
    ).body.code,
    'body_too_large',
  )
})

t.test('queues: pause, drain, resume; leases that run out', async t => {
  const api = await startTestApi(t, { MUSTER_LEASE_MS: '1000' })
  const worker = api.worker()
  await worker.heartbeat()

  await t.test('a paused queue takes jobs and hands out none; a draining one the other way round', async t => {
    t.match((await api.call('POST', '/queues/default/pause')).body, { queue: 'default', state: 'paused' })
    await put(api, 'type=noop')
    t.strictSame(await worker.claim(), [])
    const waiting = worker.claim(1, 20_000)
    t.match((await api.call('POST', '/queues/default/resume')).body, { state: 'running' })
    const [lease] = await waiting
    t.ok(lease, 'a claim that waits gets it when the queue is resumed')
    t.match((await api.call('POST', '/queues/default/drain')).body, { state: 'draining', running: 1 })
    t.equal((await api.call('PUT', '/enqueue?type=noop', json(1))).body.code, 'queue_draining')
    if (lease) await worker.complete(lease, { value: { json: 1 } })
    await api.call('POST', '/queues/default/resume')
    t.equal((await api.call('PUT', '/enqueue?type=noop', json(1))).status, 200)
    await worker.complete(await one(worker), { value: { json: 1 } })
    t.match((await api.call('GET', '/queues')).body, {
      queues: [{ queue: 'default', state: 'running', waiting: 0, uncollected: 2 }],
    })
    await api.call('POST', '/pullCompleted?top=9')
  })

  await t.test('a worker that falls silent loses its job to the next; no attempt is spent', async t => {
    const workId = await put(api, 'type=noop&attempts=1')
    const lost = await one(worker)
    const next = await one(api.worker('w1'), 10_000)
    t.match(next, { workId, attempt: 1 })
    t.not(next.token, lost.token)
    t.match(await view(api, workId), { state: 'running', attemptsMade: 0, lostLeases: 1 })
    for (let beats = 0; beats < 4; beats += 1) await worker.heartbeat([next], { waitMs: 600 })
    t.match(
      await worker.complete(next, { value: { json: 1 } }),
      { results: [{ outcome: 'succeeded' }] },
      'heartbeats kept it over two lease times',
    )
  })

  await t.test('a job that loses its worker again and again is dead', async t => {
    const api = await startTestApi(t, { MUSTER_LEASE_MS: '1000', MUSTER_MAX_LOST_LEASES: '2' })
    const worker = api.worker()
    await worker.heartbeat()
    const workId = await put(api, 'type=noop')
    await one(worker)
    await one(worker, 10_000)
    t.strictSame(await worker.claim(1, 5000), [])
    await until(async () => (await view(api, workId)).state === 'dead')
    t.match((await view(api, workId)).error, { code: 'workers_lost' })
    await api.call('POST', `/jobs/${workId}/retry`)
    await worker.heartbeat()
    t.equal((await one(worker)).workId, workId, 'a replay starts from nothing')
  })
})

t.test('listing goes page by page through every state', async t => {
  const api = await startTestApi(t)
  const worker = api.worker()
  await worker.heartbeat()
  const all = new Set<string>()
  for (let index = 0; index < 12; index += 1)
    all.add(await put(api, `type=${index % 3 === 0 ? 'countToThree' : 'noop'}&attempts=1`))
  all.add(await put(api, 'type=noop&delayMs=100000'))
  all.add(await put(api, 'type=noop&priority=3'))
  const leases = await worker.claim(6)
  for (const lease of leases.slice(0, 3)) await worker.complete(lease, { value: { json: 1 } })
  for (const lease of leases.slice(3, 5)) await worker.complete(lease, failure)
  await api.call('DELETE', `/jobs/${[...all][11]}`)
  for (const limit of [1, 4, 100]) {
    const seen: string[] = []
    let cursor = ''
    for (;;) {
      const { body } = await api.call('GET', `/jobs?limit=${limit}${cursor}`)
      seen.push(...body.jobs.map((job: { workId: string }) => job.workId))
      if (body.nextCursor === undefined) break
      cursor = `&cursor=${body.nextCursor}`
    }
    t.strictSame([...seen].sort(), [...all].sort(), `each once, ${limit} a page`)
  }
  const count = async (query: string): Promise<number> => (await api.call('GET', `/jobs?${query}`)).body.jobs.length
  t.equal(await count('state=succeeded'), 3)
  t.equal(await count('state=dead'), 2)
  t.equal(await count('state=running'), 1)
  t.equal(await count('state=delayed'), 1)
  t.equal(await count('state=waiting'), 6)
  t.equal(await count('state=cancelled'), 1)
  t.equal(await count('type=countToThree'), 4)
  t.equal(await count('type=countToThree&queue=default&state=succeeded'), 1)
  const first = (await api.call('GET', '/jobs?limit=1')).body.nextCursor
  t.equal(
    (await api.call('GET', `/jobs?limit=1&state=dead&cursor=${first}`)).body.code,
    'cursor_invalid',
    'a cursor belongs to its filters',
  )
})

t.test('retention forgets what is over, and only that', async t => {
  const api = await startTestApi(t, {
    MUSTER_RESULT_TTL_MS: '10000',
    MUSTER_UNCOLLECTED_TTL_MS: '20000',
    MUSTER_DEAD_TTL_MS: '30000',
    MUSTER_INLINE_BYTES: '10',
  })
  const worker = api.worker()
  await worker.heartbeat()
  const collected = await put(api, 'type=noop', 'a payload over the inline limit')
  await worker.complete(await one(worker), { value: { json: 1 } })
  await api.call('POST', '/pullCompleted?top=9')
  const uncollected = await put(api, 'type=noop')
  await worker.complete(await one(worker), { value: { json: 1 } })
  const dead = await put(api, 'type=noop&attempts=1')
  await worker.complete(await one(worker), failure)
  const exists = async (): Promise<boolean[]> =>
    await Promise.all(
      [collected, uncollected, dead].map(async id => (await api.call('GET', `/jobs/${id}`)).status === 200),
    )
  await until(async () => (await view(api, collected)).collection === 'acked')
  const now = Date.now()
  t.equal(await api.jobs.retention.forgetExpired(now + 9000), 0)
  t.equal(await api.jobs.retention.sweepBlobs(now + 7_200_000), 0, 'the payload of a job that exists stays')
  t.equal(await api.jobs.retention.forgetExpired(now + 11_000), 1)
  t.strictSame(await exists(), [false, true, true])
  t.equal(await api.jobs.retention.sweepBlobs(now + 7_200_000), 0, 'its payload went with it')
  t.equal(await api.jobs.retention.forgetExpired(now + 21_000), 1)
  t.equal(await api.jobs.retention.forgetExpired(now + 31_000), 1)
  t.strictSame(await exists(), [false, false, false])
  t.strictSame((await api.call('POST', '/pullCompleted?top=9&failed=include')).body, [])
})
