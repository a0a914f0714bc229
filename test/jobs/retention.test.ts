/** What a job leaves behind goes with it: keys in Redis and blobs, of every end that a job can have. */
import t, { type Test } from 'tap'
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
    await worker.giveBack([retried])
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
