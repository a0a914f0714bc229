/** What must work on every kind of Redis: one queue through the life of its jobs, over HTTP. */
import type { Test } from 'tap'
import type { TestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

const failure = { error: { code: 'handler_error', message: 'no luck' } }

const listed = async (api: TestApi, queue: string, state: string): Promise<string[]> => {
  const { body } = await api.call('GET', `/jobs?state=${state}&queue=${queue}`)
  return body.jobs.map((job: { workId: string }) => job.workId)
}

/** The queue must be empty, and is empty again afterwards. */
export async function roundTrip(t: Test, api: TestApi, queue: string): Promise<void> {
  const worker = api.worker(`worker-of-${queue}`, queue)
  const put = async (query = '&attempts=2', headers: Record<string, string> = {}): Promise<string> => {
    const reply = await api.call('PUT', `/enqueue?type=noop&queue=${queue}${query}`, {
      json: { payload: { queue } },
      headers,
    })
    if (reply.status !== 200) throw new Error(`${reply.status} ${JSON.stringify(reply.body)}`)
    return reply.body['Work ID']
  }
  const pull = async (query = ''): Promise<{ 'Work ID': string; Value?: unknown; Error?: unknown }[]> =>
    (await api.call('POST', `/pullCompleted?top=99&queue=${queue}${query}`)).body
  t.match(await worker.heartbeat(), { drain: false }, 'a worker registers')

  const several = await Promise.all(Array.from({ length: 20 }, () => put()))
  const leases = await worker.claim(20)
  t.strictSame(leases.map(({ workId }) => workId).sort(), [...several].sort(), 'put together, claimed together')
  t.strictSame((await listed(api, queue, 'running')).length, 20)
  const [first, ...others] = leases
  if (first === undefined) throw new Error('nothing was claimed')
  const after = await put()
  const reply = await worker.complete(first, { value: { json: 1 } }, 1)
  t.strictSame(
    reply.jobs.map(({ workId }) => workId),
    [after],
    'completing hands out the next one',
  )
  for (const lease of [...others, ...reply.jobs]) await worker.complete(lease, { value: { json: 1 } })
  t.match(
    await worker.complete(first, { value: { json: 2 } }),
    { results: [{ outcome: 'stale' }] },
    'a second end is refused',
  )
  const held = await api.call('POST', `/pullCompleted?top=99&queue=${queue}&leaseMs=60000`)
  t.strictSame(held.body.length, 21, 'leased')
  t.strictSame(await pull(), [], 'to one holder')
  const leaseId = held.headers.get('muster-lease-id')
  t.match((await api.call('POST', '/pullCompleted/ack', { json: { leaseId } })).body, { acked: 21, notHeld: [] })

  const [low, high] = [await put('&priority=9'), await put('&priority=1')]
  const [highLease] = await worker.claim(1)
  t.equal(highLease?.workId, high, 'by priority')
  if (highLease === undefined) return
  t.equal((await api.call('DELETE', `/jobs/${low}`)).body.state, 'cancelled')
  t.strictSame(await listed(api, queue, 'cancelled'), [low])

  t.match((await api.call('POST', `/queues/${queue}/pause`)).body, { state: 'paused' })
  const paused = await put()
  t.strictSame(await worker.claim(), [], 'a pause holds')
  t.match((await api.call('POST', `/queues/${queue}/resume`)).body, { state: 'running' })
  const [lease] = await worker.claim(1, 5000)
  t.equal(lease?.workId, paused, 'and ends')
  if (lease === undefined) return

  const checkpoint = [{ workId: paused, token: lease.token, data: { at: 7 } }]
  t.same(await worker.heartbeat([lease], { checkpoints: checkpoint }).then(({ drain }) => drain), false)
  t.strictSame(await worker.requeue([lease]), 1, 'given back')
  const [again] = await worker.claim(1, 5000)
  t.match(await worker.complete(again ?? lease, failure), { results: [{ outcome: 'retrying' }] })
  const [last] = await worker.claim(1, 10_000)
  t.match(last, { workId: paused, attempt: 2 }, 'delayed, then tried again')
  t.match(await worker.complete(last ?? lease, failure), { results: [{ outcome: 'dead' }] })
  t.match(await pull('&failed=include'), [{ 'Work ID': paused, Error: { message: 'no luck' } }])
  t.match((await api.call('POST', `/queues/${queue}/retry`)).body, { retried: 1 })
  const rest = await worker.claim(9, 5000)
  t.strictSame(
    rest.map(({ workId }) => workId),
    [paused],
    'replayed',
  )
  for (const job of rest) await worker.complete(job, { value: { json: 'fresh' } })
  await worker.complete(highLease, { value: { json: 'high' } })

  const keyed = { 'idempotency-key': `key-of-${queue}` }
  const [one, two] = await Promise.all([put('&delayMs=600000', keyed), put('&delayMs=600000', keyed)])
  t.equal(one, two, 'one key, one job')
  t.strictSame(await listed(api, queue, 'delayed'), [one])
  t.match((await api.call('GET', `/jobs/${one}`)).body, { state: 'delayed', queue })
  await api.call('DELETE', `/jobs/${one}`)

  t.strictSame(await pull('&waitMs=1000'), [
    { 'Work ID': paused, Value: 'fresh' },
    { 'Work ID': high, Value: 'high' },
  ])
  t.match((await api.call('GET', `/jobs/${paused}/result`)).body, { value: 'fresh' })
  const { body: counts } = await api.call('GET', `/queues/${queue}`)
  t.match(counts, { waiting: 0, delayed: 0, running: 0, uncollected: 0 })

  await until(async () => {
    await api.jobs.retention.forgetExpired(Date.now() + 365 * 86_400_000)
    return (await api.call('GET', `/jobs/${paused}`)).status === 404
  })
  t.strictSame((await api.call('GET', `/jobs?queue=${queue}`)).body.jobs, [], 'retention forgets all of it')
}
