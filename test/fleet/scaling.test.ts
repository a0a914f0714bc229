/** Scaling over time: a queue from zero to N and back, the measured service time, and launches that fail. */
import t from 'tap'
import { ServiceTime } from '../../src/fleet/measure/estimators.ts'
import { LaunchHistory } from '../../src/fleet/measure/pool-measures.ts'
import { decide } from '../../src/fleet/scaling/decide.ts'
import type { InstanceView } from '../../src/fleet/scaling/snapshot.ts'
import { booting, pool, ready, t0 } from '../support/snapshots.ts'

t.test('from zero to N and back to zero, without flapping', async t => {
  const tickMs = 1000
  const serviceMs = 2000
  const service = new ServiceTime()
  const history = new LaunchHistory()
  let instances: (InstanceView & { jobs: number[] })[] = []
  let waiting = 0
  let finishedCount = 0
  const sizes: number[] = []
  const counts = { launched: 0, drained: 0 }
  for (let tick = 0; tick < 400; tick += 1) {
    const now = t0 + tick * tickMs
    // A steady stream of six jobs a second for two minutes, then nothing.
    if (tick < 120) waiting += 6
    for (const instance of instances) {
      const left = instance.jobs.filter(endsAt => endsAt > now)
      finishedCount += instance.jobs.length - left.length
      instance.jobs = left
    }
    instances = instances
      .filter(({ state }) => state !== 'draining')
      .map(instance => {
        const up = instance.state === 'booting' && now - instance.launchedAt >= 3000
        const jobs = [...instance.jobs]
        const wasReady = instance.state === 'ready' || up
        while (wasReady && jobs.length < instance.slots && waiting > 0) {
          jobs.push(now + serviceMs)
          waiting -= 1
        }
        const { idleSince, ...rest } = instance
        const idle = wasReady && jobs.length === 0 ? { idleSince: idleSince ?? now } : {}
        const seen = wasReady ? { state: 'ready' as const, readyAt: instance.readyAt ?? now, lastSeenAt: now } : {}
        return { ...rest, ...seen, ...idle, jobs, leases: jobs.length }
      })
    const running = instances.reduce((sum, { leases }) => sum + leases, 0)
    const measured = service.observe({ finishedCount, busyMs: finishedCount * serviceMs, running }, now)
    const load = { waiting, running, ...(measured === undefined ? {} : { serviceMs: measured }) }
    const decision = decide({ ...pool({ load, instances, failures: history.failures }), observedSince: t0 }, now)
    for (const action of decision.actions) {
      if (action.kind === 'launch') {
        counts.launched += action.count
        for (let n = 0; n < action.count; n += 1) instances.push({ ...booting(`i${tick}-${n}`, now), jobs: [] })
      } else {
        if (action.kind === 'drain') counts.drained += 1
        instances = instances.map(instance =>
          instance.id === action.instanceId ? { ...instance, state: 'draining' as const } : instance,
        )
      }
    }
    sizes.push(instances.filter(({ state }) => state !== 'draining').length)
    if (tick === 119) t.ok(waiting <= 6 * 5, `the backlog stays within the target wait: ${waiting}`)
  }
  const peak = Math.max(...sizes)
  // Six jobs a second of two seconds each keep twelve slots busy: six workers.
  t.ok(peak >= 6 && peak <= 10, `peak ${peak}`)
  t.equal(sizes[0], 1, 'six jobs of which nothing is known')
  t.equal(sizes.at(-1), 0)
  t.equal(finishedCount, 720)
  t.equal(counts.launched, counts.drained, 'whoever came also went, once')
  t.ok(counts.launched <= peak, `no worker was launched again after it went: ${counts.launched} launched`)
  const firstDrop = sizes.findIndex((size, n) => n > 0 && size < (sizes[n - 1] ?? 0))
  t.ok(
    sizes.slice(firstDrop).every((size, n, rest) => n === 0 || size <= (rest[n - 1] ?? 0)),
    'once it shrinks it does not grow',
  )
})

t.test('service time', async t => {
  const service = new ServiceTime()
  const at = (finishedCount: number, busyMs: number, running: number, afterMs: number) =>
    service.observe({ finishedCount, busyMs, running }, t0 + afterMs)
  t.equal(at(0, 0, 0, 0), undefined, 'nothing measured')
  t.equal(at(0, 0, 3, 1000), undefined, 'only running, not for long')
  t.equal(at(0, 0, 3, 1500), undefined)
  t.equal(at(0, 0, 3, 1900), 900, 'the first jobs run for longer than the first guess')
  t.equal(at(10, 1000, 0, 2000), 100, 'the first completions')
  t.equal(at(10, 1000, 0, 90_000), 100, 'nothing new changes nothing')
  t.ok(Math.abs((at(1010, 1000 + 5000, 0, 91_000) ?? 0) - 5) < 0.5, 'many fresh ones outweigh the old')
  t.ok((at(1010, 6000, 2, 100_000) ?? 0) < 10, 'a job begins')
  t.equal(at(1010, 6000, 2, 130_000), 30_000, 'while it runs and nothing finishes, it takes at least that long')
  t.ok((at(1011, 36_000, 1, 131_000) ?? 0) < 1000)
  const restarted = new ServiceTime()
  t.equal(
    restarted.observe({ finishedCount: 100, busyMs: 2500, running: 0 }, t0),
    25,
    'a node that starts knows the mean over all time',
  )
  t.equal(
    restarted.observe({ finishedCount: 0, busyMs: 0, running: 0 }, t0 + 1),
    undefined,
    'counters that went back begin anew',
  )
})

t.test('launch history', async t => {
  const instance = (id: string, decisionId: string, launchedAt: number) => ({
    id,
    pool: 'default',
    slots: 1,
    decisionId,
    launchedAt,
    state: 'running' as const,
  })
  const history = new LaunchHistory()
  const two = [instance('a', 'd1', t0), instance('b', 'd1', t0)]
  history.observe(
    two,
    two.map(({ id }) => booting(id)),
    t0,
  )
  history.observe([], [], t0 + 500)
  t.same(
    history.failures,
    { count: 1, lastAt: t0 + 500 },
    'two instances of one decision that ended at their start are one failure',
  )
  history.failed('d2', t0 + 1000)
  history.failed('d2', t0 + 1001)
  t.same(history.failures, { count: 2, lastAt: t0 + 1000 }, 'a refused launch counts once')
  const old = ready('old', { launchedAt: t0 - 60_000, readyAt: t0 - 59_000 })
  history.observe([instance('old', 'd0', t0 - 60_000)], [old], t0 + 2000)
  t.equal(history.failures.count, 2, 'a healthy worker from before proves nothing')
  const fresh = ready('c', { launchedAt: t0 + 3000, readyAt: t0 + 3500 })
  history.observe([instance('c', 'd3', t0 + 3000)], [fresh], t0 + 13_499)
  t.equal(history.failures.count, 2, 'a fresh one has to last')
  history.observe([instance('c', 'd3', t0 + 3000)], [fresh], t0 + 13_500)
  t.equal(history.failures.count, 0, 'and then does prove it')
  history.launched('e', 'd4', t0 + 20_000)
  history.ending('e')
  history.observe([], [], t0 + 21_000)
  t.equal(history.failures.count, 0, 'one that was told to end did not fail, nor one that ended after a long time')
  history.launched('f', 'd5', t0 + 30_000)
  history.neverBooted('f', t0 + 60_000)
  history.observe([], [], t0 + 61_000)
  t.same(history.failures, { count: 1, lastAt: t0 + 60_000 }, 'one that never booted failed')
})
