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

t.test('the next job of a worker inherits the token of the one before, and not its limit', async t => {
  const api = await startTestApi(t)
  const { queue } = api.jobs.of('default')
  const worker = api.worker()
  await worker.heartbeat()
  const put = async (timeoutMs: number): Promise<string> =>
    (await api.call('PUT', `/enqueue?type=noop&timeoutMs=${timeoutMs}`, { json: { payload: null } })).body['Work ID']
  await put(1)
  const long = await put(3_600_000)
  const [first] = await worker.claim(1)
  if (first === undefined) throw new Error('one was claimed')
  // So that it is overdue in 5 s, and not 75 s after its claim.
  await api.redis.hset(queue.jobKey(first.workId), 'processedOn', Date.now() - 5 * queue.leaseMs + 5000)
  t.same((await worker.heartbeat([first])).stop, [])
  const [next] = (await worker.complete(first, { value: { json: 1 } }, 1)).jobs
  if (next === undefined) throw new Error('the next one comes along')
  t.match(next, { workId: long, token: first.token })
  const sinceMs = performance.now()
  const stopped: unknown[] = []
  await until(async () => {
    stopped.push(...(await worker.heartbeat([next])).stop)
    return performance.now() - sinceMs > 6000
  })
  t.same(stopped, [])
  t.match((await api.call('GET', `/jobs/${long}`)).body, { state: 'running', attemptsMade: 0, lostLeases: 0 })
})
