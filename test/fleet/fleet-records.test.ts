/** What the fleet keeps in Redis: the registry of workers, the lease of the autoscaler and the journal. */
import t from 'tap'
import { Journal } from '../../src/fleet/journal/journal.ts'
import { keys } from '../../src/fleet/redis-keys.ts'
import { LeaderLease } from '../../src/fleet/scaling/leader-lease.ts'
import { WorkerRegistry } from '../../src/fleet/workers/registry.ts'
import { Notifier } from '../../src/notifier.ts'
import { Clock, eventually, silent, silentAfterMs, worker } from '../support/fleet-parts.ts'
import { startTestRedis } from '../support/redis.ts'

const server = await startTestRedis(t)
const redis = await server.client()
t.beforeEach(() => redis.flushall())

t.test('registry', async t => {
  const clock = new Clock()
  const notifier = new Notifier()
  const registry = new WorkerRegistry({ redis, notifier, log: silent, aliveMs: silentAfterMs, clock: clock.now })
  t.equal(await registry.mayClaim('w1'), 'unknown')
  t.notOk(await registry.knows('w1'))
  t.notOk(await registry.requestDrain('w1', 'idle'), 'a worker that is unknown cannot be drained')
  t.equal(await redis.dbsize(), 0, 'nor does the attempt leave anything')

  t.same(
    await registry.heartbeat(worker('w1', { instanceId: 'i1', host: 'h', pid: 7, types: ['b', 'a'] }), 'ready', 0),
    { drain: false },
  )
  await registry.heartbeat(worker('w2', { queue: 'other', types: [] }), 'ready', 3)
  t.equal(await registry.mayClaim('w1'), 'yes')
  t.ok(await registry.knows('w1'))
  t.equal(await registry.countAlive(), 2)
  const [first, second] = await registry.list()
  t.match(first, {
    workerId: 'w1',
    queue: 'default',
    slots: 2,
    types: ['b', 'a'],
    instanceId: 'i1',
    host: 'h',
    pid: 7,
    state: 'ready',
    leases: 0,
    drain: undefined,
  })
  t.equal(first?.idleSince, first?.firstSeenAt)
  t.match(second, { workerId: 'w2', queue: 'other', leases: 3, idleSince: undefined })

  clock.offset = 10_000
  registry.worked('w1')
  registry.worked('nobody')
  const noted = await eventually(async () =>
    (await registry.list()).find(
      ({ idleSince, firstSeenAt }) => idleSince !== undefined && idleSince >= firstSeenAt + 10_000,
    ),
  )
  t.equal(noted?.workerId, 'w1', 'work between two heartbeats counts')
  t.equal(await redis.exists(keys.worker('nobody')), 0)
  await registry.heartbeat(worker('w2', { queue: 'other' }), 'ready', 0)
  t.ok(((await registry.list())[1]?.idleSince ?? 0) < clock.now() - 9000, 'idle since the last heartbeat with jobs')

  let notification = 0
  notifier.on('worker:w1', () => {
    notification += 1
  })
  t.ok(await registry.requestDrain('w1', 'idle'))
  t.ok(await registry.requestDrain('w1', 'manual'))
  t.equal(notification, 2)
  t.equal(await registry.mayClaim('w1'), 'drain')
  t.match(await registry.heartbeat(worker('w1'), 'ready', 0), { drain: true })
  const own = await registry.typesOf('w1')
  await registry.noteUnsupported('w1', own[0] as string)
  t.same(await registry.heartbeat(worker('w1'), 'ready', 0), { drain: true })
  t.same(await registry.typesOf('w1'), own.slice(1), 'what it turned out not to run it is not given')
  t.match(await registry.heartbeat(worker('w1', { types: ['a'] }), 'ready', 0), { typesChanged: true })
  await registry.heartbeat(worker('w1'), 'ready', 0)
  t.same(await registry.typesOf('w1'), own, 'until its handlers were replaced')
  t.equal((await registry.list())[0]?.drain?.reason, 'idle', 'the first reason stays')
  await registry.heartbeat(worker('w2', { queue: 'other' }), 'draining', 1)
  t.equal(await registry.mayClaim('w2'), 'drain', 'one that drains by itself claims nothing either')
  await registry.heartbeat(worker('w2', { queue: 'other' }), 'stopped', 0)
  t.equal(await registry.countAlive(), 1)
  await registry.heartbeat(worker('w2', { queue: 'other' }), 'draining', 1)
  t.equal(await registry.countAlive(), 1, 'a late sign of life from its drain does not bring it back')
  t.same(
    (await registry.list()).map(({ workerId }) => workerId),
    ['w1'],
  )
  t.equal((await registry.all()).length, 2)

  clock.offset = 10_000 + silentAfterMs + 1000
  t.equal(await registry.countAlive(), 0)
  t.same(await registry.list(), [])
  await registry.forget('w1')
  await registry.forget('w1')
  await registry.forget('w2')
  t.same(await registry.all(), [])
  t.equal(await registry.mayClaim('w1'), 'unknown')
  t.same(await registry.knownTypes(), new Set(['a', 'b', 'sha512']), 'types outlive their workers')
  t.same(await redis.keys('*'), [keys.types])
})

t.test('leader lease', async t => {
  const a = new LeaderLease(redis, 60_000)
  const b = new LeaderLease(redis, 60_000)
  t.equal(await a.hold(), 1)
  t.equal(await b.hold(), undefined)
  t.equal(await a.hold(), 1, 'renewing keeps the epoch')
  await b.release()
  t.equal(await a.hold(), 1, 'nobody releases what another holds')
  await a.release()
  t.equal(await b.hold(), 2, 'the epoch grows')
  t.equal(await a.hold(), undefined)
  const brief = new LeaderLease(redis, 50)
  await b.release()
  t.equal(await brief.hold(), 3)
  t.equal(await eventually(() => a.hold()), 4, 'a lease that is not renewed runs out')
  t.equal(await brief.hold(), undefined)
})

t.test('journal', async t => {
  const journal = new Journal(redis)
  t.same(await journal.read({ limit: 10 }), { decisions: [] })
  const entry = (n: number) => ({
    queue: n % 5 === 0 ? 'rare' : 'default',
    at: n,
    desired: n,
    actions: [],
    reason: 'no-work' as const,
    explanation: '',
  })
  for (let n = 1; n <= 1010; n += 1) await journal.write(entry(n))
  t.equal(await redis.xlen(keys.decisions), 1000)
  const first = await journal.read({ limit: 3 })
  t.same(
    first.decisions.map(({ at }) => at),
    [1010, 1009, 1008],
  )
  const next = await journal.read({ limit: 3, before: first.nextBefore ?? '' })
  t.same(
    next.decisions.map(({ at }) => at),
    [1007, 1006, 1005],
  )
  const rare: number[] = []
  let before: string | undefined
  do {
    const page = await journal.read({ limit: 33, queue: 'rare', ...(before === undefined ? {} : { before }) })
    rare.push(...page.decisions.map(({ at }) => at))
    before = page.nextBefore
  } while (before !== undefined)
  t.same(
    rare,
    Array.from({ length: 200 }, (_, n) => 1010 - 5 * n),
    'each once, to the end',
  )
  for (const bad of ['', 'x', '1', '1-2-3', '-', '(1-1', '99999999999999999999-1'])
    await t.rejects(journal.read({ limit: 1, before: bad }), { code: 'cursor_invalid' })
})
