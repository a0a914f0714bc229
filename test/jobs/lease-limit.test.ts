/** A worker that keeps a job for ever does not keep it for ever. */
import t from 'tap'
import { startTestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

t.test('an attempt that is extended far beyond its limit ends as timed out', async t => {
  // Long enough that the other job is not lost between two heartbeats: the end comes after five of these.
  const api = await startTestApi(t, { MUSTER_LEASE_MS: '4000', MUSTER_BACKOFF_MS: '60000' })
  const worker = api.worker()
  await worker.heartbeat()
  const put = async (query: string): Promise<string> =>
    (await api.call('PUT', `/enqueue?type=noop${query}`, { json: { payload: null } })).body['Work ID']
  const bounded = await put('&timeoutMs=1&attempts=2')
  const long = await put('&timeoutMs=3600000')
  const leases = await worker.claim(2)
  t.equal(leases.length, 2)
  let stopped: { workId: string; reason: string }[] = []
  await until(async () => {
    const { stop } = await worker.heartbeat(leases)
    stopped = stop
    return stop.length > 0
  })
  t.match(stopped, [{ workId: bounded, reason: 'lost' }])
  t.equal(stopped.length, 1, 'the other one has time')
  const { body } = await api.call('GET', `/jobs/${bounded}`)
  t.match(body, { state: 'delayed', attemptsMade: 1, lostLeases: 0, error: { code: 'timeout' } })
  t.match((await api.call('GET', `/jobs/${long}`)).body, { state: 'running', attemptsMade: 0 })
})
