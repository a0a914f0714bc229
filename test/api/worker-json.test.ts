/** The JSON of workers has a limit: a node parses it in one piece, while all others wait. What is large is uploaded. */
import t from 'tap'
import { startTestApi } from '../support/api.ts'

const fiveMebibytes = 'x'.repeat(5 * 1024 * 1024)

t.test('JSON above 4 MiB is refused and changes nothing', async t => {
  const api = await startTestApi(t)
  const put = await api.call('PUT', '/enqueue?type=noop', { json: { payload: null } })
  const workId = put.body['Work ID'] as string
  const worker = api.worker()
  await worker.heartbeat()
  const [lease] = await worker.claim(1)
  if (lease === undefined) throw new Error('no job')

  const { token, type } = lease
  const results = [{ workId, token, type, durationMs: 1, value: { json: fiveMebibytes } }]
  const refused = await api.call('POST', '/workers/complete', { json: { workerId: 'w1', queue: 'default', results } })
  t.match(refused, { status: 413, body: { code: 'body_too_large', action: /PUT \/workers\/results/ } })
  t.match((await api.call('GET', `/jobs/${workId}`)).body, { state: 'running' })

  const described = { workerId: 'w1', queue: 'default', slots: 2, types: ['noop'] }
  const beat = {
    worker: described,
    state: 'ready',
    leases: [{ workId, token }],
    logs: [{ workId, token, lines: [fiveMebibytes] }],
  }
  t.match(await api.call('POST', '/workers/heartbeat', { json: beat }), {
    status: 413,
    body: { code: 'body_too_large' },
  })

  const upload = await api.call('PUT', `/workers/results/${workId}?token=${encodeURIComponent(token)}&kind=json`, {
    headers: { 'content-type': 'application/octet-stream' },
    body: JSON.stringify(fiveMebibytes),
  })
  t.equal(upload.status, 200)
  const done = await worker.complete(lease, { value: upload.body.value })
  t.match(done.results, [{ workId, outcome: 'succeeded' }])
  t.equal((await api.call('GET', `/jobs/${workId}/result`)).status, 200)
})
