import t from 'tap'
import { launchableTypes, onlyUseful } from '../../src/fleet/fleet-queues.ts'
import type { InstanceView } from '../../src/fleet/scaling/snapshot.ts'

t.test('what the instances of a pool run', async t => {
  const workers = (...all: string[][]) => all.map(types => ({ types }))
  const rows: [string, Parameters<typeof launchableTypes>, string[]][] = [
    ['nobody knows', [[], [], []], []],
    ['the handlers of the node, from zero', [['b', 'a'], [], []], ['a', 'b']],
    ['and what the living ones declare', [['a'], workers(['b'], ['c', 'a']), []], ['a', 'b', 'c']],
    ['at zero, what the last ones declared', [['a'], [], ['baked']], ['a', 'baked']],
    ['which is forgotten when newer ones do not', [['a'], workers(['b']), ['baked']], ['a', 'b']],
  ]
  for (const [name, given, expected] of rows) t.strictSame(launchableTypes(...given), expected, name)
})

t.test('a worker that somebody else started is capacity only for what it runs', async t => {
  const view = (id: string, leases: number, unmanaged?: true): InstanceView => ({
    ...{ id, state: 'ready', launchedAt: 0, slots: 1, leases },
    ...(unmanaged && { unmanaged }),
  })
  const views = [view('ours', 1), view('python', 2, true), view('same', 1, true)]
  const workers = [
    { workerId: 'python', types: ['wordCount'] },
    { workerId: 'same', types: ['sha512', 'wordCount'] },
  ]
  const load = { waiting: 1, dueDelayed: 0, running: 4, finishedCount: 0, busyMs: 0, paused: false }
  const rows: [string, string[] | undefined, string[], number][] = [
    ['nobody tells of types', undefined, ['ours', 'python', 'same'], 4],
    ['nothing waits', [], ['ours', 'python', 'same'], 4],
    ['what only one of them runs', ['sha512'], ['ours', 'same'], 2],
    ['what both run', ['wordCount'], ['ours', 'python', 'same'], 4],
    ['both types', ['sha512', 'wordCount'], ['ours', 'same'], 2],
    ['what neither runs', ['noop'], ['ours'], 1],
  ]
  for (const [name, waitingTypes, ids, running] of rows) {
    const useful = onlyUseful({ ...load, ...(waitingTypes && { waitingTypes }) }, views, workers)
    t.strictSame(
      useful.views.map(({ id }) => id),
      ids,
      name,
    )
    t.equal(useful.load.running, running, name)
  }
})
