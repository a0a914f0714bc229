/** Workers that are ready and take nothing, while work that they can run waits. */
import t from 'tap'
import { evaluateStalled, findStalledWorkers } from '../../src/api/stalled-workers.ts'
import { startTestApi } from '../support/api.ts'

t.test('which workers are stalled', async t => {
  const now = 1_000_000
  const worker = (types: string[], idleSince?: number) => ({ workerId: 'w', types, idleSince })
  const rows: [string, ReturnType<typeof worker>, [string, number][], number[]][] = [
    ['nothing waits', worker(['a'], 0), [], []],
    ['what waits is of another type', worker(['a'], 0), [['b', 0]], []],
    ['it has a job', worker(['a']), [['a', 0]], []],
    ['it has had none for a moment', worker(['a'], now - 59_999), [['a', 0]], []],
    ['what waits came just now', worker(['a'], 0), [['a', now - 59_999]], []],
    ['both for long', worker(['b', 'a'], now - 70_000), [['a', now - 60_000]], [60_000]],
    ['the longest counts', worker(['b', 'a'], 0), [['a', now - 60_000], ['b', now - 90_000]], [90_000]], // biome-ignore format: a row
  ]
  for (const [name, one, waiting, expected] of rows) {
    const found = evaluateStalled('q', [one], new Map(waiting), 60_000, now)
    t.strictSame(
      found.map(({ forMs }) => forMs),
      expected,
      name,
    )
  }
})

t.test('by what Redis shows', async t => {
  const api = await startTestApi(t)
  const worker = api.worker()
  await worker.heartbeat()
  await api.call('PUT', '/enqueue?type=noop', { json: { payload: null } })
  const later = Date.now() + 3_600_000
  t.match(await findStalledWorkers(api, 60_000, later), [{ queue: 'default', workerId: 'w1' }])
  t.strictSame((await api.call('GET', '/health/checks')).body.standingStill, [], 'not yet')
  await api.call('POST', '/queues/default/pause')
  t.strictSame(await findStalledWorkers(api, 60_000, later), [], 'a paused queue may wait')
  await api.call('POST', '/queues/default/resume')
  await worker.claim()
  t.strictSame(await findStalledWorkers(api, 60_000, later), [], 'nothing waits any more')
})
