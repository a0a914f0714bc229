import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Cluster } from 'ioredis'
import t, { type Test } from 'tap'
import { closeRedis, connectionEpoch, connectRedis, reconnect, serversOf } from '../../src/redis/connect/connection.ts'
import { checkRedis } from '../../src/redis/inspect/checks.ts'
import { prefixOf, queueKey } from '../../src/redis/keys.ts'
import { isRedisAway } from '../../src/redis/redis-errors.ts'
import { startApiOn } from '../support/api.ts'
import { startTestRedis } from '../support/redis.ts'
import { startCluster } from '../support/redis-cluster.ts'
import { until } from '../support/until.ts'
import { roundTrip } from './round-trip.ts'

t.jobs = 1

const recordingLog = () => {
  const messages: string[] = []
  const record = (fields: unknown, message: string): void => {
    messages.push(`${message} ${JSON.stringify(fields)}`)
  }
  return { messages, log: { info: record, warn: record } as never }
}

const errorOf = (action: Promise<unknown>): Promise<Error | undefined> =>
  action.then(
    () => undefined,
    (error: Error) => error,
  )

const works = (action: Promise<unknown>): Promise<boolean> =>
  action.then(
    () => true,
    () => false,
  )

t.test('Cluster', async t => {
  const said = t.capture(console, 'error')
  const cluster = await startCluster(t)
  const { log, messages } = recordingLog()
  const [client, subscriber] = await Promise.all(
    (['commands', 'subscriber'] as const).map(purpose => connectRedis({ url: cluster.url, purpose, log })),
  )
  if (!client || !subscriber) throw new Error('not connected')
  t.teardown(() => Promise.all([client, subscriber].map(closeRedis)))
  t.equal(serversOf(client).length, 3, 'all masters are found')
  const queues = await queuesOnEach(cluster.ownerOf)

  await t.test('checks look at every master', async t => {
    t.match(await checkRedis(client), [{ level: 'warn', message: /:\d+, .*:\d+, .*: No replica is connected/ }])
    await cluster.ask(1, 'CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
    t.match(await checkRedis(client), [
      { level: 'error', message: new RegExp(`^127.0.0.1:${cluster.ports[1]}: maxmemory-policy`) },
      { level: 'warn' },
    ])
    await cluster.ask(1, 'CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
    const single = await connectRedis({ url: `redis://127.0.0.1:${cluster.ports[0]}`, purpose: 'commands', log })
    t.match(await checkRedis(single), [{ level: 'error', message: /cluster mode.*redis\+cluster:\/\// }])
    await closeRedis(single)
    const plain = await startTestRedis(t, { tcp: true })
    const error = await errorOf(
      connectRedis({ url: (plain.url ?? '').replace('redis:', 'redis+cluster:'), purpose: 'commands', log }),
    )
    t.match(String(error), /is no Redis Cluster/)
  })

  await t.test('queues on three masters, through the API', async t => {
    const file = join(t.testdir(), 'muster.yaml')
    await writeFile(file, `queues:\n${queues.map(queue => `  ${queue}:\n`).join('')}`)
    const api = await startApiOn(t, { url: cluster.url }, { MUSTER_CONFIG_FILE: file, MUSTER_BACKOFF_MS: '20' })
    for (const queue of queues) await t.test(queue, t => roundTrip(t, api, queue))
    t.match((await api.call('GET', '/fleet')).status, 200)
    t.match((await api.call('GET', '/status')).body, { Jobs: 0, Workers: 3 })
    t.equal((await api.call('GET', '/jobs')).status, 200, 'a list over all of them')
    await api.jobs.memoryGuard.loop.runAfresh()
    await cluster.ask(2, 'CONFIG', 'SET', 'maxmemory', '1mb')
    await api.jobs.memoryGuard.loop.runAfresh()
    t.throws(() => api.jobs.memoryGuard.admit(), /Memory: Redis uses/, 'one full master is seen')
    await cluster.ask(2, 'CONFIG', 'SET', 'maxmemory', '0')
  })

  const keyOf = (index: number): string => queueKey(queues[index] as string, 'test')
  const outage = async (t: Test, end: () => Promise<void>): Promise<void> => {
    const epoch = connectionEpoch(client)
    let error: Error | undefined
    await until(async () => {
      error = await errorOf(client.set(keyOf(1), 'x'))
      return error !== undefined
    })
    t.ok(isRedisAway(error), String(error))
    await end()
    await until(() => works(client.set(keyOf(1), 'y')))
    t.ok(connectionEpoch(client) > epoch, 'another connection')
    for (const index of [0, 1, 2]) await until(() => works(client.set(keyOf(index), 'y')))
  }
  const heard: string[] = []
  subscriber.on('message', (_channel: string, message: string) => heard.push(message))
  await subscriber.subscribe('news')
  const hears = async (message: string): Promise<void> =>
    until(async () => {
      await client.publish('news', message).catch(() => undefined)
      return heard.includes(message)
    })
  await hears('first')

  await t.test('a master that was killed', async t => {
    await cluster.kill(1, 'SIGKILL')
    await outage(t, () => cluster.restart(1))
    await hears('killed')
  })
  await t.test('a master that was stopped', async t => {
    await cluster.kill(1, 'SIGSTOP')
    await outage(t, () => cluster.restart(1))
    await hears('stopped')
  })
  await t.test('all of them', async () => {
    for (const index of [0, 1, 2]) await cluster.kill(index, 'SIGKILL')
    await until(async () => isRedisAway(await errorOf(client.get(keyOf(0)))))
    await Promise.all([0, 1, 2].map(index => cluster.restart(index)))
    await until(() => works(Promise.all([0, 1, 2].map(index => client.set(keyOf(index), 'z')))))
    await hears('all')
  })
  await t.test('reconnected', async t => {
    const epoch = connectionEpoch(client)
    reconnect(client)
    await until(() => works(Promise.all([0, 1, 2].map(index => client.set(keyOf(index), 'z')))))
    t.ok(connectionEpoch(client) > epoch)
  })
  await t.test('a master that is stopped gives way to its replica', async t => {
    await cluster.addReplica(1)
    const hasReplica = async (): Promise<boolean> => Number(await cluster.ask(1, 'WAIT', 1, 500)) === 1
    await until(hasReplica)
    await cluster.kill(1, 'SIGSTOP')
    await until(async () => isRedisAway(await errorOf(client.set(keyOf(1), 'x'))))
    await until(() => works(client.set(keyOf(1), 'from the replica')))
    t.equal(await cluster.ask(3, 'GET', keyOf(1)), 'from the replica')
    await hears('replaced')
    await cluster.restart(1)
  })
  await t.test('one that is closed while it asks for the slots asks no more', async t => {
    const closing = (await connectRedis({ url: cluster.url, purpose: 'commands', log })) as Cluster
    const refresh = closing.refreshSlotsCache.bind(closing)
    let calls = 0
    await new Promise<void>(resolve => {
      closing.refreshSlotsCache = callback => {
        calls += 1
        refresh(callback)
        resolve(closeRedis(closing))
      }
    })
    await until(() => Reflect.get(closing, 'isRefreshing') === false)
    t.notOk(Reflect.get(closing, 'slotsTimer'))
    t.equal(calls, 1)
  })
  t.match(messages.join('\n'), /a server of the Redis Cluster is away.*a server of the Redis Cluster is back/s)
  t.strictSame(said.args(), [], 'nothing on the console')
})

/** Names of queues whose keys live on the first, second and third master. */
async function queuesOnEach(ownerOf: (key: string) => Promise<number>): Promise<string[]> {
  const found: string[] = []
  for (let number = 0; found.filter(Boolean).length < 3; number += 1) {
    const name = `queue-${number}`
    found[await ownerOf(prefixOf(name))] ??= name
  }
  return found
}
