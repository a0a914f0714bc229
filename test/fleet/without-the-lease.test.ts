/** Local instances on a node that does not scale the fleet: they do not run for nothing. */
import t from 'tap'
import { keys } from '../../src/fleet/redis-keys.ts'
import { settings, setUp, silentAfterMs, ticking } from '../support/fleet-parts.ts'
import { MemoryProvider } from '../support/memory-provider.ts'
import { startTestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

const server = await startTestRedis(t)
const redis = await server.client()
t.beforeEach(() => redis.flushall())

const request = { pool: 'default', count: 2, decisionId: 'd', slots: 1 }

t.test('one without work is told to go, one with work stays', async t => {
  await redis.set(keys.leader, 'another node')
  const { fleet, provider, queues, clock, beat } = ticking(t, redis)
  await provider.launch(request)
  queues.leases.set('w-memory-1', 1)
  await beat()
  t.equal(await fleet.registry.mayClaim('w-memory-2'), 'yes')
  clock.offset += Math.min(settings.idleTimeoutMs + 1000, 2 * silentAfterMs)
  await until(async () => {
    await beat()
    return (await fleet.registry.mayClaim('w-memory-2')) === 'drain'
  })
  t.equal(await fleet.registry.mayClaim('w-memory-1'), 'yes', 'a busy one is left alone')
  t.equal((await provider.list()).length, 2, 'nothing was launched, nothing was ended')
})

t.test('instances elsewhere are the affair of the node that scales', async t => {
  await redis.set(keys.leader, 'another node')
  const provider = new MemoryProvider({ endsWithNode: false })
  let listCount = 0
  const counting = new Proxy(provider, {
    get(target, name) {
      if (name === 'list') listCount += 1
      const value = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  await provider.launch(request)
  const { fleet, clock } = setUp(t, redis, {
    provider: counting,
    settings: { ...settings, autoscaleIntervalMs: 20 },
  })
  const id = { workerId: 'w', queue: 'default', slots: 1, types: ['noop'], instanceId: 'memory-1' }
  await fleet.registry.heartbeat(id, 'ready', 0)
  clock.offset += settings.idleTimeoutMs + 1000
  await fleet.registry.heartbeat(id, 'ready', 0)
  fleet.start()
  // The reaper, which reads the same list, holds no lease either: nobody asks.
  const evals = async (): Promise<number> =>
    Number(/cmdstat_eval:calls=(\d+)/.exec(await redis.info('commandstats'))?.[1] ?? 0)
  const before = await evals()
  // Each tick asks for the lease.
  await until(async () => (await evals()) > before + 10)
  t.equal(listCount, 0)
  t.equal(await fleet.registry.mayClaim('w'), 'yes')
})
