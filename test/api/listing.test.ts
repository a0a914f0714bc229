/** The list of jobs, page by page, and what is forgotten of it in time. */
import t from 'tap'
import { startTestApi } from '../support/api.ts'
import { failure, one, put, view } from '../support/job-calls.ts'
import { until } from '../support/until.ts'

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
