/** What a job leaves behind goes with it: keys in Redis and blobs, of every end that a job can have. */
import t, { type Test } from 'tap'
import { expired, forget } from '../../src/jobs/bullmq/forget.ts'
import { startTestApi, type TestApi } from '../support/api.ts'

const large = Buffer.alloc(20_000, 'x')

async function blobCount(api: TestApi): Promise<number> {
  let count = 0
  for await (const _key of api.store.list(-60_000, Date.now())) count += 1
  return count
}

async function uploaded(t: Test, api: TestApi, { workId, token }: { workId: string; token: string }, kind: string) {
  const query = new URLSearchParams({ token, ...(kind === 'result' && { kind: 'bytes' }) })
  const path = kind === 'result' ? `/workers/results/${workId}` : `/workers/checkpoints/${workId}`
  const headers = { 'content-type': 'application/octet-stream' }
  const reply = await api.call('PUT', `${path}?${query}`, { headers, body: large })
  t.equal(reply.status, 200, JSON.stringify(reply.body))
  return reply.body.value
}

for (const store of ['folder', 'redis']) {
  t.test(`large payloads and results in ${store}: nothing is left once their jobs are forgotten`, async t => {
    const api = await startTestApi(t, { MUSTER_RESULT_TTL_MS: '3600000', MUSTER_PAYLOAD_STORE: store })
    const { redis, jobs } = api
    const worker = api.worker()
    await worker.heartbeat()
    const put = async (): Promise<string> => {
      const headers = { 'content-type': 'application/octet-stream' }
      return (await api.call('PUT', '/enqueue?iterations=1&attempts=1', { headers, body: large })).body['Work ID']
    }
    const keysBefore = (await redis.keys('*')).length
    for (let n = 0; n < 20; n += 1) await put()
    const leases = await worker.claim(10)
    t.equal(leases.length, 10)
    const [dead, retried, running, ...rest] = leases
    if (!dead || !retried || !running) throw new Error('ten were claimed')
    for (const lease of rest) {
      const value = await uploaded(t, api, lease, 'result')
      t.match(await worker.complete(lease, { value }), { results: [{ outcome: 'succeeded' }] })
    }
    await uploaded(t, api, running, 'checkpoint')
    await worker.complete(dead, { error: { code: 'x', message: 'dead' } })
    t.equal(await blobCount(api), 20 + rest.length + 1)

    t.equal((await api.call('DELETE', `/jobs/${running.workId}`)).status, 200)
    t.equal(await blobCount(api), 20 + rest.length - 1, 'cancelled: payload and checkpoint go at once')
    await worker.requeue([retried])
    const pulled = await api.call('POST', '/pullCompleted?top=100')
    t.equal(pulled.body.length, rest.length)
    await jobs.retention.forgetExpired(Date.now())
    t.equal(await blobCount(api), 20 + rest.length - 1, 'collected, and still to be read again')
    await jobs.retention.forgetExpired(Date.now() + 3_600_000)
    t.equal(await blobCount(api), 20 - 1 - rest.length, 'forgotten with payload and result')

    const waiting = await worker.claim(20)
    for (const lease of waiting) await api.call('DELETE', `/jobs/${lease.workId}`)
    await jobs.retention.forgetExpired(Date.now() + 365 * 86_400_000)
    t.equal(await blobCount(api), 0)
    const left = (await redis.keys('*')).filter(key => /:[kw][A-Za-z0-9_-]{21,}/.test(key))
    t.same(left, [], `no key of a job is left (${keysBefore} before)`)
  })
}

t.test('a job that was replayed since it was looked at is kept, and one whose result somebody holds', async t => {
  const api = await startTestApi(t)
  const { queue } = api.jobs.of('default')
  const worker = api.worker()
  await worker.heartbeat()
  const put = async (): Promise<string> =>
    (await api.call('PUT', '/enqueue?type=noop&attempts=1', { json: { payload: 1 } })).body['Work ID']
  const end = async (outcome: object): Promise<void> => {
    const [lease] = await worker.claim(1)
    if (lease === undefined) throw new Error('one was claimed')
    await worker.complete(lease, outcome)
  }
  const lost = { error: { code: 'x', message: 'no' } }
  const dead = await put()
  await end(lost)
  const now = Date.now()
  const limits = { before: now, beforeHeld: now }
  t.same(await expired(queue, 'failed', limits, 0, 10), { looked: 1, workIds: [dead] })
  t.equal((await api.call('POST', `/jobs/${dead}/retry`)).status, 200)
  t.same(await forget(queue, 'failed', limits, [dead]), [])
  t.match((await api.call('GET', `/jobs/${dead}`)).body, { state: 'waiting' })
  await end({ value: { json: 'after all' } })
  t.same(await forget(queue, 'failed', limits, [dead]), [])
  t.match((await api.call('POST', '/pullCompleted?top=9')).body, [{ 'Work ID': dead, Value: 'after all' }])

  const done = await put()
  await end({ value: { json: 1 } })
  const pulled = await api.call('POST', '/pullCompleted?top=9&leaseMs=60000')
  const later = Date.now()
  const collected = { before: later, beforeHeld: 0 }
  t.same((await expired(queue, 'completed', collected, 0, 10)).workIds, [dead], 'one is held')
  t.same(await forget(queue, 'completed', collected, [dead, done]), [dead])
  const leaseId = pulled.headers.get('muster-lease-id')
  t.match((await api.call('POST', '/pullCompleted/ack', { json: { leaseId } })).body, { acked: 1 })
  t.same(await forget(queue, 'completed', collected, [dead, done]), [done])
})
