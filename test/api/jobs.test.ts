/** The life of a job by its calls: states, retries, order, cancelling, idempotency keys. */
import t from 'tap'
import { forgetCancelled } from '../../src/jobs/bullmq/forget.ts'
import { startTestApi } from '../support/api.ts'
import { failure, one, put, view } from '../support/job-calls.ts'

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
    const again = await one(worker, 20_000)
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
    const late = await put(api, 'type=noop&delayMs=5000')
    const low = await put(api, 'type=noop&priority=9')
    const high = await put(api, 'type=noop&priority=1')
    const plain = await put(api, 'type=noop')
    t.match(await view(api, late), { state: 'delayed', dueAt: String })
    const leases = await worker.claim(9)
    t.strictSame(
      leases.map(lease => lease.workId),
      [plain, high, low],
    )
    const delayed = await one(worker, 30_000)
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
    t.equal(await worker.requeue([old]), 1)
    t.equal(await worker.requeue([old]), 0, 'once')
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
    const fail = { error: { code: 'x', message: 'no', retryable: false } }
    const failed = await put(api, 'type=noop')
    await worker.complete(await one(worker), fail)
    const pulled = await api.call('POST', '/pullCompleted?top=9&failed=include&leaseMs=60000')
    t.match(pulled.body.at(-1), { 'Work ID': failed, Error: { code: 'x' } })
    t.equal((await api.call('DELETE', `/jobs/${failed}`)).body.code, 'job_finished', 'its failure was handed out')
    t.match(await view(api, failed), { state: 'dead' })
    const leaseId = pulled.headers.get('muster-lease-id')
    t.match((await api.call('POST', '/pullCompleted/ack', { json: { leaseId } })).body, { notHeld: [] })
    t.strictSame(await worker.claim(9), [], 'nothing cancelled is handed out')
    await api.call('POST', '/pullCompleted?top=9')
  })

  await t.test('a job that ends, and is handed out, while it is cancelled has that one outcome', async t => {
    const { queue } = api.jobs.of('default')
    const read = queue.job.bind(queue)
    const fail = { error: { code: 'x', message: 'no', retryable: false } }
    for (const outcome of [{ value: { json: 1 } }, fail]) {
      const workId = await put(api, 'type=noop')
      let pulled: unknown
      // After the cancelling has read it, and before it removes it.
      queue.job = async id => {
        const job = await read(id)
        queue.job = read
        await worker.complete(await one(worker), outcome)
        pulled = (await api.call('POST', '/pullCompleted?top=9&failed=include')).body
        return job
      }
      const reply = await api.call('DELETE', `/jobs/${workId}`)
      t.match(pulled, [{ 'Work ID': workId }])
      t.equal(reply.body.code, 'job_finished')
      t.match(await view(api, workId), { state: outcome === fail ? 'dead' : 'succeeded', attemptsMade: 1 })
    }
    const dead = await put(api, 'type=noop')
    await worker.complete(await one(worker), fail)
    t.equal((await api.call('DELETE', `/jobs/${dead}`)).status, 200, 'a failure that nobody was given')
    t.match(await view(api, dead), { state: 'cancelled', attemptsMade: 1 })
    t.strictSame((await api.call('POST', '/pullCompleted?top=9&failed=include')).body, [])
  })

  await t.test('a job that is cancelled twice at once is cancelled, and its Idempotency-Key stands for it', async t => {
    const { queue } = api.jobs.of('default')
    const read = queue.job.bind(queue)
    for (const isClaimed of [false, true]) {
      const put = async () =>
        await api.call('PUT', '/enqueue?type=noop', {
          headers: { 'idempotency-key': `twice-${isClaimed}` },
          json: { payload: 1 },
        })
      const workId = (await put()).body['Work ID']
      if (isClaimed) t.equal((await one(worker)).workId, workId)
      // Both have read the job before either goes on.
      let count = 0
      let release = (): void => undefined
      const both = new Promise<void>(resolve => {
        release = resolve
      })
      queue.job = async id => {
        const job = await read(id)
        count += 1
        if (count === 2) release()
        await both
        return job
      }
      const cancel = async () => await api.call('DELETE', `/jobs/${workId}`)
      const replies = await Promise.all([cancel(), cancel()])
      queue.job = read
      for (const reply of replies) t.match(reply, { status: 200, body: { workId, state: 'cancelled' } })
      t.match(await put(), { status: 200, body: { 'Work ID': workId } })
      t.match(await view(api, workId), { state: 'cancelled' })
      t.strictSame(await worker.claim(9), [])
    }
  })

  await t.test('a replay that is refused leaves the lease of its result alone', async t => {
    const workId = await put(api, 'type=noop&attempts=1')
    await worker.complete(await one(worker), { error: { code: 'x', message: 'no' } })
    t.equal((await api.call('POST', `/jobs/${workId}/retry`)).status, 200)
    await worker.complete(await one(worker), { value: { json: 1 } })
    const pulled = await api.call('POST', '/pullCompleted?top=9&leaseMs=60000')
    t.strictSame(pulled.body, [{ 'Work ID': workId, Value: 1 }])
    t.equal((await api.call('POST', `/jobs/${workId}/retry`)).body.code, 'job_not_dead')
    const leaseId = pulled.headers.get('muster-lease-id')
    t.match((await api.call('POST', '/pullCompleted/ack', { json: { leaseId } })).body, { acked: 1, notHeld: [] })
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
      await api.call('PUT', `/enqueue?${query}`, {
        headers: { 'idempotency-key': 'order-17' },
        ...{ json: { payload } },
      })
    const replies = await Promise.all([call('type=noop', 1), call('type=noop', 1), call('type=noop', 1)])
    t.equal(new Set(replies.map(reply => reply.body['Work ID'])).size, 1)
    t.equal((await worker.claim(9)).length, 1, 'one job')
    t.equal((await call('type=noop', 2)).body.code, 'idempotency_key_reused')
    t.equal((await call('type=noop&priority=1', 1)).body.code, 'idempotency_key_reused')
    const large = 'x'.repeat(50_000)
    const big = async (payload: string) =>
      await api.call('PUT', '/enqueue?type=noop', { headers: { 'idempotency-key': 'big' }, ...{ json: { payload } } })
    const [workId] = [(await big(large)).body['Work ID']]
    t.equal((await big(large)).body['Work ID'], workId)
    t.equal((await big(`${large}!`)).body.code, 'idempotency_key_reused')
    const lease = await one(worker)
    const url = (lease.payload as { blob: { url: string } }).blob.url
    t.equal((await api.call('GET', url)).body, large, 'the first payload is untouched')
    const blobs = []
    for await (const key of api.store.list(0, Date.now() + 1000)) blobs.push(key)
    t.equal(blobs.length, 1, 'nothing else is left in the store')
    await worker.complete(lease, { value: { json: 1 } })
  })

  await t.test('an Idempotency-Key whose job was cancelled does not bring it back', async t => {
    for (const [query, isClaimed] of [
      ['type=noop', false],
      ['type=noop', true],
      ['type=noop&priority=3', false],
      ['type=noop&delayMs=60000', false],
    ] as const) {
      const key = `cancelled ${query} ${isClaimed}`.replaceAll(' ', '-')
      const put = async (payload: string) =>
        await api.call('PUT', `/enqueue?${query}`, { headers: { 'idempotency-key': key }, json: { payload } })
      const large = 'y'.repeat(50_000)
      const workId = (await put(large)).body['Work ID']
      if (isClaimed) t.equal((await one(worker)).workId, workId)
      t.equal((await api.call('DELETE', `/jobs/${workId}`)).status, 200)
      t.match(await put(large), { status: 200, body: { 'Work ID': workId } })
      t.equal((await put('another')).body.code, 'idempotency_key_reused')
      t.equal((await api.call('GET', `/jobs/${workId}`)).body.state, 'cancelled', key)
      await api.call('POST', '/queues/default/drain')
      t.match(await put(large), { status: 200, body: { 'Work ID': workId } }, 'nor while the queue drains')
      await api.call('POST', '/queues/default/resume')
    }
    t.strictSame(await worker.claim(9), [])
    const blobs = []
    for await (const key of api.store.list(0, Date.now() + 1000)) blobs.push(key)
    t.equal(blobs.length, 1, 'its payload is not kept again')
  })

  await t.test('a key that is given free while its request comes again makes the job anew', async t => {
    const { queue } = api.jobs.of('default')
    const put = async () =>
      await api.call('PUT', '/enqueue?type=noop', { headers: { 'idempotency-key': 'freed' }, json: { payload: 1 } })
    const workId = (await put()).body['Work ID']
    t.equal((await api.call('DELETE', `/jobs/${workId}`)).status, 200)
    const run = queue.writes.run.bind(queue.writes)
    t.teardown(() => {
      queue.writes.run = run
    })
    queue.writes.run = (async (...args: Parameters<typeof run>) => {
      const reply = await run(...args)
      queue.writes.run = run
      t.ok((await forgetCancelled(queue, Date.now(), 1000)) > 0)
      return reply
    }) as typeof run
    t.match(await put(), { status: 200, body: { 'Work ID': workId } })
    t.match(await view(api, workId), { state: 'waiting' })
    await worker.complete(await one(worker), { value: { json: 1 } })
    await api.call('POST', '/pullCompleted?top=9')
  })
})
