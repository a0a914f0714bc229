/** decide: each rule by table, then what holds for every snapshot. */
import fc from 'fast-check'
import t from 'tap'
import { decide } from '../../src/fleet/scaling/decide.ts'
import type { InstanceView, PoolSnapshot } from '../../src/fleet/scaling/snapshot.ts'
import { booting, type Given, pool, ready, t0 } from '../support/snapshots.ts'

const idleFor = (id: string, ms: number): InstanceView => ready(id, { idleSince: t0 - ms })
const busy = (id: string, leases = 2): InstanceView => ready(id, { leases })

t.test('size', async t => {
  const cases: [string, Given, number, string][] = [
    ['nothing to do', {}, 0, 'no-work'],
    ['one job, unmeasured', { load: { waiting: 1 } }, 1, 'target-wait'],
    ['unmeasured jobs are taken for short ones', { load: { waiting: 20 } }, 1, 'target-wait'],
    ['but they are work', { load: { waiting: 41 } }, 3, 'target-wait'],
    [
      'a target wait shorter than the first guess',
      { settings: { targetWaitMs: 100 }, load: { waiting: 7 } },
      4,
      'target-wait',
    ],
    ['1,000 jobs of 10 ms fit one worker', { load: { waiting: 1000, serviceMs: 10 } }, 1, 'target-wait'],
    ['1,001 jobs of 10 ms do not', { load: { waiting: 1001, serviceMs: 10 } }, 2, 'target-wait'],
    [
      'due and running jobs are work, too',
      { load: { waiting: 500, dueDelayed: 500, running: 500, serviceMs: 10 } },
      2,
      'target-wait',
    ],
    ['long jobs take a slot each, no more', { load: { waiting: 2, running: 2, serviceMs: 600_000 } }, 2, 'target-wait'],
    ['any job needs a worker', { load: { waiting: 1, serviceMs: 0 } }, 1, 'target-wait'],
    [
      'jobs per worker, rounded up',
      { settings: { policy: 'jobs-per-worker' }, load: { waiting: 21, serviceMs: 1 } },
      3,
      'jobs-per-worker',
    ],
    [
      'jobs per worker, exactly',
      { settings: { policy: 'jobs-per-worker' }, load: { waiting: 15, running: 5 } },
      2,
      'jobs-per-worker',
    ],
    ['jobs per worker, none', { settings: { policy: 'jobs-per-worker' } }, 0, 'no-work'],
    ['fixed, without work', { settings: { policy: 'fixed' } }, 3, 'fixed'],
    ['fixed, with work', { settings: { policy: 'fixed' }, load: { waiting: 1000 } }, 3, 'fixed'],
    ['floor', { settings: { minWorkers: 2 } }, 2, 'floor'],
    ['floor below the need', { settings: { minWorkers: 2 }, load: { waiting: 6, serviceMs: 5000 } }, 3, 'target-wait'],
    ['ceiling', { load: { waiting: 1000 } }, 10, 'ceiling'],
    [
      'ceiling for jobs per worker',
      { settings: { policy: 'jobs-per-worker' }, load: { waiting: 1000 } },
      10,
      'ceiling',
    ],
    ['ceiling for fixed', { settings: { policy: 'fixed', maxWorkers: 1 } }, 1, 'ceiling'],
    ['paused', { load: { waiting: 1000, paused: true } }, 0, 'paused'],
    ['paused, with a floor', { settings: { minWorkers: 1 }, load: { waiting: 1000, paused: true } }, 1, 'floor'],
    ['paused, fixed', { settings: { policy: 'fixed' }, load: { paused: true } }, 0, 'paused'],
  ]
  for (const [name, given, desired, reason] of cases) {
    const decision = decide(pool(given), t0)
    t.same({ desired: decision.desired, reason: decision.reason }, { desired, reason }, name)
    const launches = desired === 0 ? [] : [{ kind: 'launch', count: desired, reason }]
    t.same(decision.actions, launches, `${name}: launches what is desired`)
    t.match(decision.explanation, `Wants ${desired}: `)
  }
  t.equal(
    decide(pool({ load: { waiting: 10, running: 2, serviceMs: 2500 }, instances: [busy('a')] }), t0).explanation,
    'Wants 3: 12 jobs (10 waiting, 0 due, 2 running) at 2500 ms each, to finish within 5000 ms on 2 slots a worker, need 3 workers. Has 1 ready; launches 2.',
  )
})

t.test('instances', async t => {
  const drain = (instanceId: string) => ({ kind: 'drain', instanceId, reason: 'idle' })
  const end = (instanceId: string, reason: string, force: boolean) => ({ kind: 'terminate', instanceId, force, reason })
  const launch = (count: number, reason: string) => ({ kind: 'launch', count, reason })
  const draining = (id: string, since: number, leases = 0) =>
    ready(id, { state: 'draining', drainingSince: since, leases })
  const cases: [string, Given, object[]][] = [
    ['booting counts', { load: { waiting: 4, serviceMs: 5000 }, instances: [booting('a'), booting('b')] }, []],
    [
      'booting counts once, the rest is launched',
      { load: { waiting: 6, serviceMs: 5000 }, instances: [booting('a'), busy('b')] },
      [launch(1, 'target-wait')],
    ],
    ['idle for long enough', { instances: [idleFor('a', 60_000)] }, [drain('a')]],
    ['idle, but not for long enough', { instances: [idleFor('a', 59_999)] }, []],
    ['idle, but needed', { load: { waiting: 1 }, instances: [idleFor('a', 90_000)] }, []],
    [
      'longest idle first, down to what is desired',
      { settings: { minWorkers: 1 }, instances: [idleFor('a', 70_000), idleFor('b', 90_000), idleFor('c', 80_000)] },
      [drain('b'), drain('c')],
    ],
    ['holding a job', { instances: [ready('a', { leases: 1, idleSince: t0 - 90_000 })] }, []],
    [
      'a booting one may never come: the idle one stays',
      { settings: { minWorkers: 1 }, instances: [idleFor('a', 90_000), booting('b')] },
      [],
    ],
    [
      'paused: idle ones go, busy ones stay',
      { load: { paused: true, waiting: 99, running: 2 }, instances: [busy('a'), idleFor('b', 70_000)] },
      [drain('b')],
    ],
    ["somebody else's idle worker", { instances: [{ ...idleFor('a', 90_000), unmanaged: true }] }, []],
    [
      "somebody else's worker is capacity",
      { load: { waiting: 2 }, instances: [{ ...ready('a'), unmanaged: true }] },
      [],
    ],
    [
      'over the ceiling and busy',
      {
        settings: { maxWorkers: 1 },
        load: { waiting: 9, running: 4, serviceMs: 5000 },
        instances: [busy('a'), busy('b')],
      },
      [],
    ],
    [
      'boot timeout',
      { instances: [booting('a', t0 - 30_001), booting('b', t0 - 30_000)] },
      [end('a', 'boot-timeout', true)],
    ],
    ['boot timeout: nobody could register', { observedSince: t0 - 5000, instances: [booting('a', t0 - 90_000)] }, []],
    [
      'boot timeout: replaced',
      { load: { waiting: 2 }, instances: [booting('a', t0 - 40_000)] },
      [end('a', 'boot-timeout', true), launch(1, 'target-wait')],
    ],
    ['lost', { instances: [ready('a', { lastSeenAt: t0 - 30_001, leases: 2 })] }, [end('a', 'lost-worker', true)]],
    [
      'lost, ended once though it is idle as well',
      { instances: [ready('a', { lastSeenAt: t0 - 90_000, idleSince: t0 - 90_000 })] },
      [end('a', 'lost-worker', true)],
    ],
    [
      'silent, but nobody could be heard',
      { observedSince: t0 - 30_000, instances: [ready('a', { lastSeenAt: t0 - 90_000 })] },
      [],
    ],
    ["somebody else's lost worker", { instances: [ready('a', { lastSeenAt: t0 - 90_000, unmanaged: true })] }, []],
    ['drained', { instances: [draining('a', t0 - 1000)] }, [end('a', 'drained', false)]],
    ['drained a moment ago', { instances: [draining('a', t0 - 999)] }, []],
    ['draining with a job', { instances: [draining('a', t0 - 90_000, 1)] }, []],
    [
      'draining and silent',
      { instances: [{ ...draining('a', t0 - 90_000, 1), lastSeenAt: t0 - 40_000 }] },
      [end('a', 'lost-worker', true)],
    ],
    [
      'draining is no capacity',
      { load: { waiting: 2 }, instances: [draining('a', t0, 1)] },
      [launch(1, 'target-wait')],
    ],
    [
      'draining fills a place below the ceiling',
      { settings: { maxWorkers: 1 }, load: { waiting: 2 }, instances: [draining('a', t0, 1)] },
      [],
    ],
    [
      'terminating is neither',
      { settings: { maxWorkers: 1 }, load: { waiting: 2 }, instances: [ready('a', { state: 'terminating' })] },
      [launch(1, 'target-wait')],
    ],
  ]
  for (const [name, given, actions] of cases) t.same(decide(pool(given), t0).actions, actions, name)
})

t.test('failed launches back off', async t => {
  const given = (count: number): Given => ({ load: { waiting: 20, serviceMs: 5000 }, failures: { count, lastAt: t0 } })
  const cases: [number, number][] = [
    [1, 1000],
    [2, 2000],
    [3, 4000],
    [5, 16_000],
    [6, 20_000],
    [500, 20_000],
  ]
  for (const [count, waitMs] of cases) {
    const early = decide(pool(given(count)), t0 + waitMs - 1)
    t.same(
      { reason: early.reason, actions: early.actions },
      { reason: 'launch-backoff', actions: [] },
      `${count} failures: waits`,
    )
    t.equal(early.desired, 10)
    const later = decide(pool(given(count)), t0 + waitMs)
    t.same(later.actions, [{ kind: 'launch', count: 1, reason: 'target-wait' }], `${count} failures: then launches one`)
  }
  const trial = decide(pool({ ...given(1), instances: [booting('a', t0 + 1000)] }), t0 + 2000)
  t.same(
    { reason: trial.reason, actions: trial.actions },
    { reason: 'launch-backoff', actions: [] },
    'one trial at a time',
  )
  const proven = decide(
    pool({ ...given(1), instances: [ready('a', { launchedAt: t0 + 1000 }), booting('old', t0 - 1)] }),
    t0 + 3000,
  )
  t.same(proven.actions, [{ kind: 'launch', count: 1, reason: 'target-wait' }], 'then the next')
  const enough = decide(pool({ ...given(3), load: {} }), t0)
  t.equal(enough.reason, 'no-work', 'nothing is missing: no backoff')
})

const arbitraryInstance: fc.Arbitrary<Omit<InstanceView, 'id'>> = fc
  .record({
    state: fc.constantFrom('booting', 'ready', 'draining', 'terminating' as const),
    age: fc.integer({ min: 0, max: 200_000 }),
    leases: fc.integer({ min: 0, max: 2 }),
    silentMs: fc.integer({ min: 0, max: 40_000 }),
    idleMs: fc.integer({ min: 0, max: 200_000 }),
    unmanaged: fc.boolean(),
    market: fc.constantFrom('spot', 'on-demand', undefined),
    hourlyUsd: fc.option(fc.double({ min: 0, max: 5, noNaN: true }), { nil: undefined }),
    notice: fc.option(
      fc.record({
        kind: fc.constantFrom('interruption', 'rebalance'),
        inMs: fc.integer({ min: -90_000, max: 120_000 }),
      }),
      { nil: undefined },
    ),
  })
  .map(({ state, age, leases, silentMs, idleMs, unmanaged, market, hourlyUsd, notice }) => {
    const bought = { ...(market && { market }), ...(hourlyUsd !== undefined && { hourlyUsd }) }
    const base = { state, launchedAt: t0 - age, slots: 2, ...bought }
    if (state === 'booting') return { ...base, leases: 0 }
    return {
      ...base,
      leases,
      readyAt: t0 - age,
      lastSeenAt: t0 - silentMs,
      ...(leases === 0 ? { idleSince: t0 - idleMs } : {}),
      ...(state === 'draining' ? { drainingSince: t0 - idleMs } : {}),
      ...(state === 'draining' && notice ? { interrupted: { kind: notice.kind, at: t0 + notice.inMs } } : {}),
      ...(unmanaged && state !== 'terminating' ? { unmanaged: true as const } : {}),
    }
  })

const arbitrarySnapshot: fc.Arbitrary<PoolSnapshot> = fc
  .record({
    floor: fc.integer({ min: 0, max: 5 }),
    above: fc.integer({ min: 0, max: 10 }),
    policy: fc.constantFrom('target-wait', 'jobs-per-worker', 'fixed' as const),
    waiting: fc.integer({ min: 0, max: 300 }),
    running: fc.integer({ min: 0, max: 20 }),
    serviceMs: fc.option(fc.integer({ min: 0, max: 100_000 }), { nil: undefined }),
    paused: fc.boolean(),
    failures: fc.record({ count: fc.integer({ min: 0, max: 8 }), lastAt: fc.integer({ min: t0 - 30_000, max: t0 }) }),
    instances: fc.array(arbitraryInstance, { maxLength: 12 }),
    observedMs: fc.integer({ min: 0, max: 500_000 }),
    bootMs: fc.option(fc.integer({ min: 0, max: 200_000 }), { nil: undefined }),
    arrivalsPerSecond: fc.option(fc.double({ min: 0, max: 50, noNaN: true }), { nil: undefined }),
    waitingMs: fc.option(fc.integer({ min: 0, max: 500_000 }), { nil: undefined }),
  })
  .map(({ floor, above, policy, waiting, running, paused, failures, instances, observedMs, ...measured }) => {
    const { serviceMs, bootMs, arrivalsPerSecond, waitingMs } = measured
    return pool({
      settings: { minWorkers: floor, maxWorkers: floor + above, policy },
      load: {
        waiting,
        running,
        paused,
        ...(serviceMs !== undefined && { serviceMs }),
        ...(arrivalsPerSecond !== undefined && { arrivalsPerSecond }),
        ...(waitingMs !== undefined && { waitingSince: t0 - waitingMs }),
      },
      ...(bootMs !== undefined && { bootMs }),
      failures,
      observedSince: t0 - observedMs,
      instances: instances.map((instance, n) => ({ ...instance, id: `i${n}` })),
    })
  })

/** The pool after the actions were carried out: launched ones boot, drained ones drain, terminated ones go. */
function after(snapshot: PoolSnapshot, { actions }: ReturnType<typeof decide>): PoolSnapshot {
  const instances = snapshot.instances.flatMap((instance): InstanceView[] => {
    const action = actions.find(action => action.kind !== 'launch' && action.instanceId === instance.id)
    if (action === undefined) return [instance]
    return action.kind === 'drain'
      ? [{ ...instance, state: 'draining', drainingSince: t0 }]
      : [{ ...instance, state: 'terminating' }]
  })
  const launched = actions.flatMap(action =>
    action.kind === 'launch' ? Array.from({ length: action.count }, (_, n) => booting(`new${n}`)) : [],
  )
  return { ...snapshot, instances: [...instances, ...launched] }
}

t.test('what holds for every snapshot', async t => {
  const there = (snapshot: PoolSnapshot) => snapshot.instances.filter(({ state }) => state !== 'terminating')
  const interruptedIn = (snapshot: PoolSnapshot) => there(snapshot).filter(({ interrupted }) => interrupted).length
  const present = (snapshot: PoolSnapshot) => there(snapshot).length - interruptedIn(snapshot)
  const serving = (snapshot: PoolSnapshot) =>
    snapshot.instances.filter(({ state }) => state === 'ready' || state === 'booting').length
  const launchesOf = ({ actions }: ReturnType<typeof decide>) =>
    actions.reduce((sum, action) => sum + (action.kind === 'launch' ? action.count : 0), 0)
  const holds = () =>
    fc.assert(
      fc.property(arbitrarySnapshot, snapshot => {
        const decision = decide(snapshot, t0)
        const { minWorkers, maxWorkers } = snapshot.settings
        const next = after(snapshot, decision)
        const launches = launchesOf(decision)
        if (decision.desired < minWorkers || decision.desired > maxWorkers)
          throw new Error('wants more or less than is allowed')
        if (launches > 0 && there(next).length > maxWorkers + interruptedIn(next))
          throw new Error('launched above the ceiling and the interrupted ones')
        const full = present(next) >= maxWorkers
        const held = snapshot.failures.count > 0
        if (!full && !held && serving(next) < minWorkers) throw new Error('left below the floor')
        if (!full && !held && serving(next) < decision.desired) throw new Error('left below what is desired')
        if (launches > 0 && serving(next) > decision.desired) throw new Error('booting capacity was not counted')
        for (const action of decision.actions) {
          if (action.kind === 'launch') continue
          const instance = snapshot.instances.find(({ id }) => id === action.instanceId)
          if (instance === undefined || instance.unmanaged) throw new Error('ended what is not ours')
          if (action.kind === 'drain' && instance.leases > 0) throw new Error('drained a busy worker')
          if (action.reason === 'idle' && launches > 0) throw new Error('shrank and grew at once')
          const late = instance.interrupted?.kind === 'interruption' && instance.interrupted.at < t0 - 60_000
          const silent = (instance.lastSeenAt ?? t0) < t0 - snapshot.silentAfterMs
          if (action.kind === 'terminate' && instance.leases > 0 && !late && !silent)
            throw new Error('ended a busy worker that is alive and may stay')
          if (action.reason === 'drained' && instance.leases > 0) throw new Error('ended a busy worker')
        }
        const ended = decision.actions.flatMap(action => (action.kind === 'launch' ? [] : [action.instanceId]))
        if (new Set(ended).size !== ended.length) throw new Error('ended an instance twice')
        const again = decide({ ...next, failures: { count: 0, lastAt: 0 } }, t0)
        if (snapshot.failures.count === 0 && launchesOf(again) > 0)
          throw new Error('launched twice for the same backlog')
        if (again.actions.some(({ kind }) => kind !== 'launch')) throw new Error('ended more the second time')
        const replayed = decide(JSON.parse(JSON.stringify(snapshot)) as PoolSnapshot, t0)
        if (JSON.stringify(replayed) !== JSON.stringify(decision))
          throw new Error('a recorded snapshot decides otherwise')
      }),
      // One seed, so that a run is the same everywhere; a search over many is `PROPERTY_RUNS=400000`.
      process.env.PROPERTY_RUNS === undefined
        ? { numRuns: 5000, seed: 1411753967 }
        : { numRuns: Number(process.env.PROPERTY_RUNS) },
    )
  t.doesNotThrow(holds)
})
