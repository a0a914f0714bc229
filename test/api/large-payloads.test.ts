/** Payloads and results above the inline limit, from the submitter to the worker and back. */
import { randomBytes } from 'node:crypto'
import t from 'tap'
import { startTestApi } from '../support/api.ts'
import { one } from '../support/job-calls.ts'

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
  const workId = (await api.call('PUT', '/enqueue?type=noop', { json: { payload } })).body['Work ID']
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
