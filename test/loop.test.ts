/** The loop: runs never overlap, each call gets what its run did, and stop leaves nothing behind. */
import t from 'tap'
import { Loop, type LoopOptions } from '../src/loop.ts'
import { until } from './support/until.ts'

const neverMs = 2 ** 30

/** A loop whose runs end when the test says so. */
function makeLoop(options: Partial<LoopOptions<number>> = {}) {
  const lines: string[] = []
  const note = (level: string) => (_details: object, text: string) => void lines.push(`${level} ${text}`)
  const runs: { end: (result: number) => void; fail: (error: Error) => void }[] = []
  const loop = new Loop<number>({
    name: 'it',
    intervalMs: neverMs,
    run: () => new Promise((end, fail) => runs.push({ end, fail })),
    log: { info: note('info'), warn: note('warn'), error: note('error') } as never,
    ...options,
  })
  const run = async (count: number) => {
    await until(() => runs.length >= count)
    const found = runs[count - 1]
    if (found === undefined) throw new Error('it runs')
    return found
  }
  return { loop, lines, runs, run }
}

t.test('runOnce returns what the run did; a second call joins it', async t => {
  const { loop, runs, run } = makeLoop()
  const both = [loop.runOnce(), loop.runOnce()]
  ;(await run(1)).end(7)
  t.same(await Promise.all(both), [7, 7])
  t.equal(runs.length, 1)
})

t.test('runAfresh does not join a run that began before it', async t => {
  const { loop, runs, run } = makeLoop()
  const first = loop.runOnce()
  const afresh = loop.runAfresh()
  ;(await run(1)).end(1)
  t.equal(await first, 1)
  ;(await run(2)).end(2)
  t.equal(await afresh, 2)
  t.equal(runs.length, 2)
})

t.test('a failure rejects; it is logged once an outage, and so is its end', async t => {
  for (const failureLevel of ['warn', 'error'] as const) {
    const { loop, lines, run } = makeLoop({ failureLevel })
    for (const count of [1, 2]) {
      const failed = t.rejects(loop.runOnce(), { message: 'no' })
      ;(await run(count)).fail(new Error('no'))
      await failed
    }
    const works = loop.runOnce()
    ;(await run(3)).end(0)
    await works
    t.same(lines, [`${failureLevel} it failed; it goes on trying`, 'info it works again'])
  }
})

t.test('the first run: at the start, or after an interval', async t => {
  const atStart = makeLoop({ runsAtStart: true })
  const later = makeLoop()
  later.loop.start()
  atStart.loop.start()
  atStart.loop.start()
  ;(await atStart.run(1)).end(1)
  t.equal(later.runs.length, 0)
  await Promise.all([atStart.loop.stop(), later.loop.stop()])
  t.equal(atStart.runs.length, 1, 'starting twice is starting once')
})

t.test('it runs again after an interval, also after a failure', async t => {
  const { loop, runs, run } = makeLoop({ intervalMs: 1, runsAtStart: true, jitter: true })
  loop.start()
  ;(await run(1)).fail(new Error('no'))
  ;(await run(2)).end(2)
  ;(await run(3)).end(3)
  await loop.stop()
  t.equal(runs.length, 3)
})

t.test('wake runs soon; one that comes during a run runs once more', async t => {
  const { loop, runs, run } = makeLoop()
  loop.wake()
  loop.start()
  loop.wake()
  const first = await run(1)
  loop.wake()
  loop.wake()
  t.equal(runs.length, 1, 'runs do not overlap')
  first.end(1)
  ;(await run(2)).end(2)
  await loop.stop()
  t.equal(runs.length, 2)
})

t.test('stop waits for the run under way and for one that waits behind it', async t => {
  const { loop, runs, run } = makeLoop({ runsAtStart: true })
  loop.start()
  const first = await run(1)
  const afresh = loop.runAfresh()
  let stopped = false
  const stops = [loop.stop(), loop.stop()].map(stop =>
    stop.then(() => {
      stopped = true
    }),
  )
  first.end(1)
  const second = await run(2)
  t.notOk(stopped)
  second.end(2)
  t.equal(await afresh, 2)
  await Promise.all(stops)
  loop.wake()
  t.equal(runs.length, 2, 'a stopped loop is not woken')
})
