/** The fleet at work on a real Redis: autoscaler, reaper and the facade, with instances in memory. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import t from 'tap'
import { createLocalProvider } from '../../src/fleet/providers/local/local-provider.ts'
import type { Provider } from '../../src/fleet/providers/provider.ts'
import { keys } from '../../src/fleet/redis-keys.ts'
import { decide } from '../../src/fleet/scaling/decide.ts'
import { Clock, eventually, settings, setUp, silent, silentAfterMs, ticking, worker } from '../support/fleet-parts.ts'
import { MemoryProvider } from '../support/memory-provider.ts'
import { startTestRedis } from '../support/redis.ts'

const server = await startTestRedis(t)
const redis = await server.client()
t.beforeEach(() => redis.flushall())

t.test('from work to workers and back, each step with its reason', async t => {
  const { fleet, queues, provider, clock, beat, notifier } = setUp(t, redis)
  fleet.start()
  const pool = async () => (await fleet.status()).find(({ queue }) => queue === 'default')
  await eventually(async () => (await pool())?.reason === 'no-work')
  t.equal((await provider.list()).length, 0)

  queues.waiting = 5
  notifier.notify('backlog')
  await eventually(async () => (await provider.list()).length === 3)
  t.match(await pool(), {
    policy: 'target-wait',
    min: 0,
    max: 4,
    desired: 3,
    reason: 'target-wait',
    load: { waiting: 5 },
    workers: [],
  })
  t.match((await pool())?.explanation, /^Wants 3: 5 jobs .*\. Has none; launches 3\.$/)
  await beat()
  t.equal((await pool())?.workers.length, 3)

  for (const { id } of await provider.list()) queues.leases.set(`w-${id}`, 1)
  queues.waiting = 0
  const busy = 'w-memory-1'
  queues.leases.delete('w-memory-2')
  queues.leases.delete('w-memory-3')
  await beat()
  clock.offset += settings.idleTimeoutMs
  await beat()
  const tick = async (condition: () => Promise<boolean>): Promise<void> => {
    await eventually(async () => {
      notifier.notify('backlog')
      return await condition()
    })
  }
  const drains = async () =>
    (await fleet.registry.list()).filter(({ drain }) => drain !== undefined).map(({ workerId }) => workerId)
  await tick(async () => (await drains()).length === 2)
  t.same((await drains()).sort(), ['w-memory-2', 'w-memory-3'], 'the busy worker stays')
  t.equal(await fleet.registry.mayClaim(busy), 'yes')
  t.equal(await fleet.registry.mayClaim('w-memory-2'), 'drain')

  clock.offset += 1000
  await beat()
  await tick(async () => (await provider.list()).filter(({ state }) => state === 'terminating').length === 2)
  provider.end('memory-2')
  provider.end('memory-3')
  await eventually(async () => (await fleet.registry.all()).length === 1)
  t.equal(await fleet.registry.mayClaim('w-memory-2'), 'unknown')

  const { decisions } = await fleet.decisions({ limit: 100, queue: 'default' })
  const actions = decisions.flatMap(decision => decision.actions).reverse()
  t.same(
    actions
      .map(action => {
        const what = action.kind === 'launch' ? action.count : action.kind === 'sweep' ? '' : action.instanceId
        return `${action.kind} ${what} ${action.reason}`
      })
      .sort(),
    [
      'boot memory-1 booted',
      'boot memory-2 booted',
      'boot memory-3 booted',
      'drain memory-2 idle',
      'drain memory-3 idle',
      'launch 3 target-wait',
      'terminate memory-2 drained',
      'terminate memory-3 drained',
    ],
  )
  for (const { id, at, inputs, queue, epoch, decisionId, ...decision } of decisions) {
    if (decision.reason === 'booted') continue
    if (inputs === undefined) throw new Error('a decision without inputs')
    t.same(decide(inputs, at), decision, `decision ${id} gives the same answer again`)
    t.equal(epoch, 1)
  }
  t.same(queues.returned, [], 'no job was taken from anybody')
})

t.test('two nodes: one acts, and the other goes on when it stops', async t => {
  const clock = new Clock()
  const provider = new MemoryProvider({ clock: clock.now })
  const first = ticking(t, redis, { provider, clock: clock.now })
  await eventually(async () => (await redis.get(keys.epoch)) === '1')
  const second = ticking(t, redis, { provider, clock: clock.now, queues: first.queues })
  first.queues.waiting = 3
  await eventually(async () => (await provider.list()).length === 2)
  await redis.del(keys.leader)
  await eventually(async () => Number(await redis.get(keys.epoch)) >= 2)
  t.equal(provider.launchCount, 1, 'who takes over sees what was launched')
  const epoch = Number(await redis.get(keys.epoch))
  const holder = await redis.get(keys.leader)
  await first.fleet.stop()
  await second.fleet.stop()
  t.ok(holder)
  t.ok(epoch >= 2)
  t.equal(await redis.get(keys.leader), null, 'a node that stops lets go of the lease')
})

t.test('a worker that dies at its start is not launched in a hot loop', async t => {
  const dataDir = await mkdtemp(join(tmpdir(), 'muster-fleet-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  const script = join(dataDir, 'broken.mjs')
  await writeFile(script, 'process.exit(1)')
  const local = createLocalProvider({
    dataDir,
    workerCommand: [process.execPath, script],
    environment: {},
    terminateGraceMs: 100,
    closeGraceMs: 100,
    log: silent,
  })
  let launches = 0
  const counting = new Proxy(local, {
    get: (target, name) => {
      if (name === 'launch') launches += 1
      const value = Reflect.get(target, name) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  }) as Provider
  // It stands still, so that a wait ends when it is told to.
  let nowMs = Date.now()
  const { fleet, queues } = ticking(t, redis, { provider: counting, clock: () => nowMs })
  queues.waiting = 5
  const latest = async () => (await fleet.status())[0]
  const failuresOf = async (): Promise<number> => {
    const text = await redis.hget(keys.latest, 'default')
    return text === null ? 0 : (JSON.parse(text) as { inputs: { failures: { count: number } } }).inputs.failures.count
  }
  await eventually(async () => (await failuresOf()) === 1 && (await latest())?.reason === 'launch-backoff')
  t.equal(launches, 1)
  t.match((await latest())?.explanation, /launches failed in a row: 1, so the next one waits \d+ ms/)
  nowMs += 1000
  await eventually(async () => (await failuresOf()) === 2 && (await latest())?.reason === 'launch-backoff')
  t.equal(launches, 2)
  for (let tick = 0; tick < 3; tick++) {
    nowMs += 50
    await eventually(async () => (await latest())?.decidedAt === nowMs)
  }
  t.equal(launches, 2, 'ticks pass, and it waits')
})

t.test('refused launches back off, too, and work flows when they go through again', async t => {
  const { fleet, queues, provider, clock } = ticking(t, redis)
  provider.launchError = new Error('no capacity')
  queues.waiting = 1
  await eventually(async () => (await fleet.status())[0]?.reason === 'launch-backoff')
  provider.launchError = undefined
  clock.offset += 1000
  await eventually(async () => (await provider.list()).length === 1)
  t.equal(provider.launchCount, 1)
})

t.test('reaper', async t => {
  const { fleet, queues, provider, clock, beat } = ticking(t, redis)
  queues.waiting = 4
  await eventually(async () => (await provider.list()).length === 2)
  await beat()
  await fleet.registry.heartbeat(worker('outside'), 'ready', 1)
  queues.waiting = 0
  for (const id of ['w-memory-1', 'w-memory-2', 'outside']) queues.leases.set(id, 1)

  provider.end('memory-1')
  await eventually(() => queues.returned.length === 1)
  t.same(queues.returned, ['w-memory-1'], 'its instance is gone: at once')
  await eventually(async () => !(await fleet.registry.knows('w-memory-1')))

  queues.leases.set('stranger', 2)
  await eventually(() => queues.returned.includes('stranger'))
  t.pass('jobs of somebody who is not registered go back')

  // In steps shorter than the longest gap of the observation window, all but one go silent.
  for (let passedMs = 0; passedMs <= silentAfterMs; passedMs += 10_000) {
    clock.offset += 10_000
    await fleet.registry.heartbeat(worker('w-memory-2', { instanceId: 'memory-2' }), 'ready', 1)
    const from = clock.now()
    await eventually(async () => ((await fleet.status())[0]?.decidedAt ?? 0) > from)
  }
  await eventually(() => queues.returned.includes('outside'))
  await eventually(async () => !(await fleet.registry.knows('outside')))
  t.notOk(queues.returned.includes('w-memory-2'))
  t.ok(await fleet.registry.knows('w-memory-2'))

  await fleet.registry.heartbeat(worker('w-memory-2', { instanceId: 'memory-2' }), 'stopped', 0)
  await eventually(() => queues.returned.includes('w-memory-2'))
  t.pass('what a worker still held when it stopped goes back')
})

t.test('after a time in which nobody could be heard, nobody is blamed', async t => {
  const { fleet, queues, provider, clock, beat } = ticking(t, redis)
  queues.waiting = 2
  await eventually(async () => (await provider.list()).length === 1)
  await beat()
  queues.waiting = 0
  queues.leases.set('w-memory-1', 2)
  clock.offset += 10 * silentAfterMs
  const from = clock.now()
  await eventually(async () => ((await fleet.status())[0]?.decidedAt ?? 0) > from + 200)
  t.same(queues.returned, [])
  t.equal((await provider.list())[0]?.state, 'running')
  t.ok(await fleet.registry.knows('w-memory-1'))
})

t.test('Redis goes away and comes back', async t => {
  const own = await startTestRedis(t)
  const client = new Redis({
    path: own.socketPath,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    retryStrategy: () => 20,
    maxLoadingRetryTime: 50,
  })
  client.on('error', () => undefined)
  t.teardown(() => client.disconnect())
  await eventually(() => client.status === 'ready')
  const lines: { level: number; msg: string }[] = []
  const log = pino(
    { level: 'info' },
    { write: (line: string) => lines.push(JSON.parse(line) as { level: number; msg: string }) },
  )
  const { queues, provider } = ticking(t, client, { log })
  queues.waiting = 2
  await eventually(async () => (await provider.list()).length === 1)
  await own.kill()
  const failed = (loop: string) => lines.filter(({ msg }) => msg === `${loop} failed; it goes on trying`).length
  await eventually(() => failed('autoscaler') === 1 && failed('reaper') === 1)
  const again = (loop: string) =>
    lines.find(({ msg }) => msg === `${loop} works again`) as { failures?: number } | undefined
  // pause: several ticks fail before it is back
  await delay(300)
  await own.restart()
  await eventually(() => again('autoscaler') !== undefined && again('reaper') !== undefined)
  t.ok((again('autoscaler')?.failures ?? 0) >= 2, `failed ${again('autoscaler')?.failures} times`)
  t.equal(failed('autoscaler'), 1, 'and said so once')
  t.equal(provider.launchCount, 1)
  queues.waiting = 4
  await eventually(async () => (await provider.list()).length === 2)
})

t.test('a queue that is not declared any more keeps nothing', async t => {
  const { fleet, provider, queues } = setUp(t, redis, { settings: { ...settings, autoscaleIntervalMs: 50 } })
  queues.returnLeasesOf = async queue => {
    throw new Error(`no queue ${queue}`)
  }
  await provider.launch({ pool: 'removed', count: 1, decisionId: 'earlier', slots: 1 })
  await fleet.registry.heartbeat(worker('w1', { queue: 'removed', instanceId: 'memory-1' }), 'ready', 0)
  fleet.start()
  await eventually(async () => (await provider.list())[0]?.state === 'terminating')
  provider.end('memory-1')
  await eventually(async () => !(await fleet.registry.knows('w1')))
  const { decisions } = await fleet.decisions({ limit: 10, queue: 'removed' })
  t.same(
    decisions.flatMap(({ actions }) => actions),
    [{ kind: 'terminate', instanceId: 'memory-1', force: false, reason: 'unknown-pool' }],
  )
})

t.test('by hand', async t => {
  const { fleet, provider, queues, beat } = setUp(t, redis)
  t.same(await fleet.spawn('nobody', 1), { outcome: 'unknown-queue' })
  t.same(await fleet.spawn('__proto__', 1), { outcome: 'unknown-queue' })
  t.same(await fleet.spawn('default', 3), { outcome: 'launched', instanceIds: ['memory-1', 'memory-2', 'memory-3'] })
  t.same(await fleet.spawn('default', 3), { outcome: 'launched', instanceIds: ['memory-4'] }, 'up to the ceiling')
  t.same(await fleet.spawn('default', 1), { outcome: 'at-ceiling', max: 4 })
  t.same(await fleet.endInstance('memory-9', { force: true }), { outcome: 'unknown-instance' })
  t.same(await fleet.endInstance('memory-4', { force: false }), {
    outcome: 'terminating',
    instanceId: 'memory-4',
    workerIds: [],
    returned: 0,
  })
  t.equal((await provider.list())[3]?.state, 'terminating', 'one that boots ends at once')
  provider.end('memory-4')
  await beat()
  t.same(await fleet.endInstance('memory-1', { force: false }), {
    outcome: 'draining',
    instanceId: 'memory-1',
    workerIds: ['w-memory-1'],
    returned: 0,
  })
  t.same(await fleet.endInstance('w-memory-2', { force: false }), {
    outcome: 'draining',
    instanceId: 'memory-2',
    workerIds: ['w-memory-2'],
    returned: 0,
  })
  t.equal(await fleet.registry.mayClaim('w-memory-1'), 'drain')
  t.equal(await fleet.registry.mayClaim('w-memory-3'), 'yes')
  const { decisions } = await fleet.decisions({ limit: 10 })
  t.equal(decisions.length, 5)
  t.ok(decisions.every(({ reason }) => reason === 'manual'))

  queues.leases.set('w-memory-3', 2)
  await Promise.all([fleet.stop(), fleet.stop()])
  t.same(await provider.list(), [], 'instances on this machine end with the node')
  t.same(queues.returned, ['w-memory-3'], 'and what they held goes back')
  t.same(await fleet.registry.all(), [])
})

t.test('without a provider', async t => {
  const { fleet, queues } = ticking(t, redis, { provider: undefined })
  await fleet.registry.heartbeat(worker('w1'), 'ready', 1)
  queues.waiting = 50
  queues.leases.set('stranger', 1)
  await eventually(() => queues.returned.includes('stranger'))
  t.pass('lost jobs go back all the same')
  t.same(await fleet.spawn('default', 1), { outcome: 'no-provider' })
  const [pool] = await fleet.status()
  t.same(pool?.instances, [])
  t.equal(pool?.desired, undefined)
  t.equal(pool?.workers.length, 1)
  t.same(await fleet.endInstance('w1', { force: false }), {
    outcome: 'draining',
    instanceId: 'w1',
    workerIds: ['w1'],
    returned: 0,
  })
  t.same(
    (await fleet.decisions({ limit: 10 })).decisions.map(({ reason }) => reason),
    ['manual'],
  )
})
