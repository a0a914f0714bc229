/** The fleet on instances that are taken away, never boot or are launched twice: autoscaler, reaper and sweeper on a real Redis. */
import t from 'tap'
import { Journal } from '../../src/fleet/journal/journal.ts'
import { LatestDecisions } from '../../src/fleet/journal/latest-decisions.ts'
import { LaunchError, type Provider } from '../../src/fleet/providers/provider.ts'
import { keys } from '../../src/fleet/redis-keys.ts'
import { Autoscaler } from '../../src/fleet/scaling/autoscaler.ts'
import { LaunchTickets } from '../../src/fleet/scaling/launch-tickets.ts'
import { Sweeper } from '../../src/fleet/scaling/sweeper.ts'
import { ObservationWindow } from '../../src/fleet/workers/observation-window.ts'
import { WorkerRegistry } from '../../src/fleet/workers/registry.ts'
import { Notifier } from '../../src/notifier.ts'
import {
  Clock,
  eventually,
  FakeQueues,
  settings,
  setUp,
  silent,
  silentAfterMs,
  ticking,
  worker,
} from '../support/fleet-parts.ts'
import { MemoryProvider } from '../support/memory-provider.ts'
import { startTestRedis } from '../support/redis.ts'

const server = await startTestRedis(t)
const redis = await server.client()
t.beforeEach(() => redis.flushall())

t.test(
  'a worker says that its host is taken away: it is replaced at the notice, and nothing is held against its jobs',
  async t => {
    const { fleet, queues, provider, beat, notifier } = setUp(t, redis)
    queues.waiting = 8
    fleet.start()
    await eventually(async () => (await provider.list()).length === 4)
    await beat()
    queues.waiting = 0
    for (const { id } of await provider.list()) queues.leases.set(`w-${id}`, 2)
    const first = worker('w-memory-1', { instanceId: 'memory-1' })
    const at = new Date(Date.now() + 120_000).toISOString()
    // Nobody rings, and the next tick is an hour away.
    t.same(await fleet.registry.heartbeat(first, 'ready', 2, { kind: 'rebalance', at }), { drain: true })
    await eventually(async () => (await provider.list()).length === 5)
    t.pass('at the ceiling of four, and above it')
    const [latest] = (await fleet.decisions({ limit: 1 })).decisions
    t.match(latest, { reason: 'interrupted', actions: [{ kind: 'launch', count: 1, reason: 'interrupted' }] })
    t.equal(await fleet.registry.mayClaim('w-memory-1'), 'drain')

    const interruptionOf = async () => (await fleet.registry.all())[0]?.interruption
    t.match(await interruptionOf(), { kind: 'rebalance', at: Date.parse(at) })
    await fleet.registry.heartbeat(first, 'draining', 2, { kind: 'interruption', at: 'soon' })
    t.match(await interruptionOf(), { kind: 'interruption' }, 'it became certain')
    await fleet.registry.heartbeat(first, 'draining', 2, { kind: 'rebalance', at })
    t.match(await interruptionOf(), { kind: 'interruption' }, 'and stays so')
    t.match((await fleet.status())[0]?.workers[0], {
      interruption: { kind: 'interruption' },
      drain: { reason: 'interrupted' },
    })

    provider.end('memory-1')
    provider.end('memory-2')
    notifier.notify('backlog')
    await eventually(() => queues.returned.length === 2)
    t.same(queues.returned.toSorted(), ['w-memory-1', 'w-memory-2'])
    t.same(queues.lost, ['w-memory-2'], 'only the one without notice counts as lost')
  },
)

t.test('an instance that never boots: ended, with what it said in the journal', async t => {
  const { fleet, queues, provider, clock } = ticking(t, redis)
  queues.waiting = 8
  await eventually(async () => (await provider.list()).length === 4)
  provider.consoles.set('memory-1', `${'x'.repeat(9000)} cannot find the bundle`)
  const { explainBoot } = provider
  provider.explainBoot = async id => {
    if (id === 'memory-2') throw new Error('throttled')
    // It registers just now, between the decision and its end.
    if (id === 'memory-3') await fleet.registry.heartbeat(worker('w3', { instanceId: id }), 'ready', 0)
    return await explainBoot.call(provider, id)
  }
  // In steps shorter than the longest gap of the observation window.
  for (let passedMs = 0; passedMs <= 20_000; passedMs += 10_000) {
    clock.offset += 10_000
    const from = clock.now()
    await eventually(async () => ((await fleet.status())[0]?.decidedAt ?? 0) > from)
  }
  const gone = async (id: string) => !(await provider.list()).some(instance => instance.id === id)
  await eventually(async () => (await gone('memory-1')) && (await gone('memory-2')) && (await gone('memory-4')))
  t.notOk(await gone('memory-3'), 'it came after all')
  t.equal(await fleet.registry.mayClaim('w3'), 'yes')
  const { decisions } = await fleet.decisions({ limit: 100 })
  const bootDiagnostics = decisions.flatMap(decision => Object.entries(decision.bootDiagnostics ?? {}))
  t.equal(bootDiagnostics.length, 1)
  t.match(bootDiagnostics[0], ['memory-1', / cannot find the bundle$/])
  t.equal(bootDiagnostics[0]?.[1].length, 4096)
  await fleet.registry.heartbeat(worker('w1', { instanceId: 'memory-1' }), 'ready', 0)
  t.equal(await fleet.registry.mayClaim('w1'), 'drain', 'one that registers behind the cordon claims nothing')
  t.notOk(await redis.exists(keys.cordon('memory-3')))
})

t.test('a worker that was silent and comes back while it is ended: it drains, and is not killed', async t => {
  const { fleet, queues, provider, clock, beat } = ticking(t, redis)
  queues.waiting = 2
  await eventually(async () => (await provider.list()).length === 1)
  await beat()
  queues.waiting = 0
  const forced: boolean[] = []
  const { terminate } = provider
  provider.terminate = async (ids, options) => {
    forced.push(options?.force ?? false)
    await terminate.call(provider, ids, options)
  }
  const { requestDrain } = fleet.registry
  fleet.registry.requestDrain = async (workerId, reason) => {
    const found = await requestDrain.call(fleet.registry, workerId, reason)
    await beat()
    return found
  }
  for (let passedMs = 0; passedMs <= silentAfterMs; passedMs += 10_000) {
    clock.offset += 10_000
    const from = clock.now()
    await eventually(async () => ((await fleet.status())[0]?.decidedAt ?? 0) > from)
  }
  await eventually(async () => (await fleet.registry.mayClaim('w-memory-1')) === 'drain')
  clock.offset += 1000
  await eventually(async () => (await provider.list())[0]?.state === 'terminating')
  t.same(forced, [false], 'it was ended when it held nothing, in order')
})

/** An autoscaler that believes to hold the lease, whatever others do. */
function unleased(
  redis: Parameters<typeof setUp>[1],
  epoch: number,
  provider: Provider,
  queues: FakeQueues,
  clock: Clock,
) {
  const log = silent
  const registry = new WorkerRegistry({
    redis,
    notifier: new Notifier(),
    log,
    aliveMs: silentAfterMs,
    clock: clock.now,
  })
  return new Autoscaler({
    pools: settings.pools,
    intervalMs: 3_600_000,
    silentAfterMs,
    provider,
    registry,
    queues,
    leaderLease: { hold: async () => epoch },
    observation: new ObservationWindow(silentAfterMs),
    tickets: new LaunchTickets(redis),
    journal: new Journal(redis),
    latest: new LatestDecisions(redis),
    log,
    clock: clock.now,
  })
}

t.test('two autoscalers at once, both sure to hold the lease: what is missing is launched once', async t => {
  const clock = new Clock()
  const provider = new MemoryProvider({ clock: clock.now, endsWithNode: false })
  const queues = new FakeQueues()
  const nodes = [1, 2].map(epoch => unleased(redis, epoch, provider, queues, clock))
  for (const round of [1, 2, 3, 4]) {
    queues.waiting = 2 * round
    let open = () => {}
    provider.gate = new Promise(resolve => {
      open = resolve
    })
    const asked = provider.asked.length
    const ticks = nodes.map(node => node.runOnce())
    await eventually(() => provider.asked.length === asked + 2)
    open()
    await Promise.all(ticks)
    t.equal(provider.asked.at(-1), provider.asked.at(-2), 'both ask for the same launch')
    t.equal((await provider.list()).length, round, `${round} launched, one at a time`)
  }
  t.equal(provider.launchCount, 4)
  t.equal(new Set(provider.asked).size, 4)
  for (const node of nodes) await node.runOnce()
  t.equal(provider.launchCount, 4)

  // Also in turn, and when the one's list does not show yet what the other launched.
  await redis.flushall()
  const late = new MemoryProvider({ clock: clock.now, endsWithNode: false })
  const blind = new Proxy(late, {
    get: (target, name) => {
      if (name === 'list') return async () => []
      const value = Reflect.get(target, name) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  }) as Provider
  const [sees, isBlind] = [unleased(redis, 3, late, queues, clock), unleased(redis, 4, blind, queues, clock)]
  await sees.runOnce()
  t.equal((await late.list()).length, 4)
  await isBlind.runOnce()
  t.equal(late.launchCount, 1, 'it counts what the last launch brought as booting')
})

t.test('a reply that is lost after the launch, and a list that is behind: launched once all the same', async t => {
  const clock = new Clock()
  const provider = new MemoryProvider({ clock: clock.now, endsWithNode: false })
  const queues = new FakeQueues()
  const { list } = provider
  provider.list = async () => []
  provider.lostReply = new LaunchError('No reply', [
    { code: 'TimeoutError', message: 'no reply', throttled: false, capacity: false },
  ])
  queues.waiting = 6
  const node = unleased(redis, 1, provider, queues, clock)
  await node.runOnce()
  t.equal(provider.launchCount, 1)
  clock.offset += 1000
  await node.runOnce()
  clock.offset += 2000
  provider.lostReply = undefined
  await node.runOnce()
  provider.list = list
  t.equal(provider.launchCount, 1)
  t.equal((await provider.list()).length, 3)
  t.equal(new Set(provider.asked).size, 1)
  t.equal(provider.asked.length, 3, 'it was asked for again, under the same name')
  const latest = (await new LatestDecisions(redis).read()).get('default')
  t.match(latest?.inputs.failures, { count: 2, lastError: /No reply: TimeoutError/ })

  // A refusal for want of room is certain: the next try is another launch, with other pools to try.
  provider.launchError = new LaunchError('No room', [
    { code: 'InsufficientInstanceCapacity', message: 'none', throttled: false, capacity: true },
  ])
  queues.waiting = 8
  clock.offset += 30_000
  for (const { id } of await provider.list())
    await redis.hset(keys.worker(`w-${id}`), {
      description: JSON.stringify(worker(`w-${id}`, { instanceId: id })),
      state: 'ready',
      leases: '2',
      firstSeenAt: String(clock.now() - 20_000),
      lastSeenAt: String(clock.now()),
    })
  for (const { id } of await provider.list()) await redis.zadd(keys.workers, clock.now(), `w-${id}`)
  await node.runOnce()
  clock.offset += 20_000
  for (const { id } of await provider.list()) await redis.hset(keys.worker(`w-${id}`), 'lastSeenAt', clock.now())
  provider.launchError = undefined
  await node.runOnce()
  t.equal(new Set(provider.asked).size, 3)
  t.equal((await provider.list()).length, 4)
})

t.test('leftovers are swept by one node, and journaled', async t => {
  const provider = new MemoryProvider()
  const journal = new Journal(redis)
  const sweeper = (epoch: number | undefined) =>
    new Sweeper({ provider, leaderLease: { hold: async () => epoch }, journal, log: silent, clock: Date.now })
  provider.leftovers = ['vol-1', 'vol-2']
  t.equal(await sweeper(undefined).runOnce(), 0, 'another node holds the lease')
  t.equal(await sweeper(5).runOnce(), 2)
  t.equal(await sweeper(5).runOnce(), 0)
  const { decisions } = await journal.read({ limit: 10 })
  t.equal(decisions.length, 1)
  t.match(decisions[0], {
    queue: '*',
    reason: 'leftover',
    epoch: 5,
    explanation: /vol-1, vol-2\.$/,
    actions: [{ kind: 'sweep', leftoverIds: ['vol-1', 'vol-2'] }],
  })
})

t.test('by hand, with force', async t => {
  const { fleet, provider, queues, beat, notifier } = setUp(t, redis)
  await fleet.spawn('default', 2)
  await beat()
  queues.leases.set('w-memory-1', 2)
  t.same(await fleet.endInstance('w-memory-1', { force: true }), {
    outcome: 'terminating',
    instanceId: 'memory-1',
    workerIds: ['w-memory-1'],
    returned: 2,
  })
  t.same(
    (await provider.list()).map(({ id }) => id),
    ['memory-2'],
    'at once',
  )
  t.same(queues.returned, ['w-memory-1'])
  t.same(queues.lost, [], 'nothing is held against its jobs')
  t.equal(await fleet.registry.mayClaim('w-memory-1'), 'drain')
  await fleet.registry.heartbeat(worker('outside'), 'ready', 1)
  queues.leases.set('outside', 1)
  t.match(await fleet.endInstance('outside', { force: true }), { outcome: 'draining', returned: 1 })
  t.match(
    (await fleet.decisions({ limit: 2 })).decisions.map(({ reason, actions }) => [reason, actions[0]]),
    [
      ['manual', { kind: 'drain', instanceId: 'outside' }],
      ['manual', { kind: 'terminate', instanceId: 'memory-1', force: true }],
    ],
  )
  provider.launchError = new LaunchError('No room', [])
  t.same(await fleet.spawn('default', 1), { outcome: 'launch-failed', message: 'No room' })
  notifier.notify('backlog')
})
