import { createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { Queue } from 'bullmq'
import type { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { StartupError } from '../../src/errors.ts'
import { closeRedis, connectRedis } from '../../src/redis/connect/connection.ts'
import { checkRedis } from '../../src/redis/inspect/checks.ts'
import { globalKey, prefixOf, queueKey } from '../../src/redis/keys.ts'
import { isRedisAway, isRedisFull } from '../../src/redis/redis-errors.ts'
import { startTestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

const recordingLog = () => {
  const messages: string[] = []
  const record = (_fields: unknown, message: string): void => {
    messages.push(message)
  }
  return { messages, log: { info: record, warn: record } as never }
}

const works = (action: () => Promise<unknown>) => (): Promise<boolean> =>
  action().then(
    () => true,
    () => false,
  )

const errorOf = (action: Promise<unknown>): Promise<unknown> =>
  action.then(
    () => undefined,
    (error: unknown) => error,
  )

t.test(
  'commands fail at once while Redis is away and work again by themselves, through the same BullMQ queue',
  async t => {
    const redis = await startTestRedis(t, { appendOnly: true })
    const { log, messages } = recordingLog()
    const client = await connectRedis({ socketPath: redis.socketPath, purpose: 'commands', log })
    const queue = new Queue('work', { connection: client, prefix: prefixOf('work') })
    queue.on('error', () => undefined)
    t.teardown(async () => {
      await queue.close()
      await closeRedis(client)
    })
    t.ok((await queue.add('x', {})).id)
    t.equal(await client.exists(queueKey('work', 'work:meta')), 1, "the queue's keys carry its hash tag")

    for (let outage = 1; outage <= 2; outage++) {
      const inFlight = Promise.allSettled(Array.from({ length: 200 }, (_, i) => queue.add('x', { i })))
      await redis.kill()
      for (const outcome of await inFlight) {
        if (outcome.status === 'rejected') t.ok(isRedisAway(outcome.reason), `in flight: ${String(outcome.reason)}`)
      }
      await until(() => client.status !== 'ready')
      for (const action of [queue.add('x', {}), client.set('a', 'b'), queue.addBulk([{ name: 'x', data: {} }])]) {
        const error = await errorOf(action)
        t.ok(isRedisAway(error), `while away: ${String(error)}`)
      }
      const [entry] =
        (await client
          .pipeline()
          .set('a', 'b')
          .exec()
          .catch((error: unknown) => [[error]])) ?? []
      t.ok(isRedisAway(entry?.[0]), 'a pipeline too')
      await redis.restart()
      await until(works(() => queue.add('x', {})))
    }
    t.same(messages, ['Redis is away', 'Redis is back', 'Redis is away', 'Redis is back'], 'said once an outage')
  },
)

t.test('a subscriber still hears after outages, also one in which it could not connect for a while', async t => {
  const redis = await startTestRedis(t)
  const { log } = recordingLog()
  const subscriber = await connectRedis({ socketPath: redis.socketPath, purpose: 'subscriber', log })
  t.teardown(() => closeRedis(subscriber))
  const heard = new Set<string>()
  subscriber.on('message', (_channel: string, message: string) => heard.add(message))
  await subscriber.subscribe('notifier')
  for (const message of ['before', 'after one outage', 'after two']) {
    if (message !== 'before') {
      await redis.kill()
      await until(() => subscriber.status !== 'ready')
      await redis.restart()
    }
    const publisher = await redis.client()
    await until(async () => {
      await publisher.publish('notifier', message)
      return heard.has(message)
    })
  }
  t.equal(heard.size, 3)
})

t.test('a client that ended by itself is connected again; a closed one stays closed', async t => {
  const redis = await startTestRedis(t)
  const { log } = recordingLog()
  const client = await connectRedis({ socketPath: redis.socketPath, purpose: 'commands', log })
  client.disconnect()
  await until(works(() => client.ping()))
  await closeRedis(client)
  // pause: longer than it takes to revive one
  await delay(400)
  t.equal(client.status, 'end')
  await closeRedis(client)
  t.pass('closing twice is fine')
})

t.test('a Redis that falls silent: commands time out, and the connection is made anew', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const front = await silenceableFront(t, Number(new URL(redis.url ?? '').port))
  const { log, messages } = recordingLog()
  const client = await connectRedis({ url: front.url, purpose: 'commands', log })
  t.teardown(() => closeRedis(client))
  await client.ping()
  front.silence()
  t.ok(isRedisAway(await errorOf(client.ping())), 'the command is given up')
  front.speakToNewcomers()
  await until(works(() => client.ping()))
  t.ok(messages.includes('Redis is back'))
})

t.test('what cannot be connected to is said with the address, without its password', async t => {
  const { log } = recordingLog()
  const nobody = await errorOf(
    connectRedis({ url: 'redis://me:s3cret@127.0.0.1:1/2', purpose: 'commands', log, readyWithinMs: 300 }),
  )
  t.type(nobody, StartupError)
  t.match((nobody as Error).message, /redis:\/\/me:\*\*\*@127\.0\.0\.1:1\/2.*ECONNREFUSED.*MUSTER_REDIS_URL/s)
  t.notMatch((nobody as Error).message, /s3cret/)
  const redis = await startTestRedis(t, { tcp: true, config: { requirepass: 'right' } })
  for (const url of [redis.url ?? '', (redis.url ?? '').replace('//', '//:s3cret@')]) {
    const refused = await errorOf(connectRedis({ url, purpose: 'commands', log }))
    t.type(refused, StartupError)
    t.match((refused as Error).message, /does not let us in/)
    t.notMatch((refused as Error).message, /s3cret/)
  }
  const client = await connectRedis({ url: (redis.url ?? '').replace('//', '//:right@'), purpose: 'commands', log })
  t.equal(await client.ping(), 'PONG')
  await closeRedis(client)
})

t.test('errors are told apart', async t => {
  const redis = await startTestRedis(t, { config: { maxmemory: '3mb' } })
  const client = await redis.client()
  const fill = async (): Promise<void> => {
    for (let i = 0; i < 100; i++) await client.set(`k${i}`, 'x'.repeat(100_000))
  }
  const full = await errorOf(fill())
  t.ok(isRedisFull(full), String(full))
  t.notOk(isRedisAway(full))
  t.ok(
    isRedisFull(await errorOf(client.eval("return redis.call('set', KEYS[1], ARGV[1])", 1, 'a', 'x'.repeat(200_000)))),
    'inside a script',
  )
  await client.flushall()
  await client.replicaof('127.0.0.1', '1')
  t.ok(isRedisAway(await errorOf(client.set('a', 'b'))), 'a replica')
  t.ok(isRedisAway(await errorOf(client.eval("return redis.call('set', 'a', 'b')", 0))), 'a replica, inside a script')
  await client.replicaof('NO', 'ONE')
  await client.config('SET', 'min-replicas-to-write', '1')
  t.ok(isRedisAway(await errorOf(client.set('a', 'b'))), 'too few replicas')
  await client.config('SET', 'min-replicas-to-write', '0')
  const mistakes = [
    await errorOf(client.call('nonsense')),
    await errorOf(client.eval('syntax error', 0)),
    new Error('any'),
    undefined,
    'text',
  ]
  const reset = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET', syscall: 'read' })
  for (const mistake of [...mistakes, reset]) t.notOk(isRedisAway(mistake) || isRedisFull(mistake), String(mistake))
  t.ok(isRedisAway(new Error('outer', { cause: new Error('Connection is closed.') })), 'a cause counts')
})

t.test('checkRedis finds what would hurt', async t => {
  const findings = async (client: Redis): Promise<string[]> =>
    (await checkRedis(client)).map(({ level, message }) => `${level}: ${message}`)
  const good = await startTestRedis(t, { appendOnly: true })
  const client = await good.client()
  t.same(await findings(client), [])

  await client.config('SET', 'appendfsync', 'no')
  t.match(await findings(client), [/^warn: appendfsync is no/])
  await client.config('SET', 'appendonly', 'no')
  await client.config('SET', 'maxmemory-policy', 'allkeys-lru')
  t.match(await findings(client), [
    /^error: maxmemory-policy is allkeys-lru.*CONFIG SET maxmemory-policy noeviction/,
    /^warn: .*append-only/,
  ])
  await client.replicaof('127.0.0.1', '6390')
  t.match(await findings(client), [/^error: This Redis is a replica.*127\.0\.0\.1:6390/, /^error: maxmemory/, /^warn/])
  await client.replicaof('NO', 'ONE')

  await client.acl('SETUSER', 'default', '-config')
  t.match(
    await findings(client),
    [/^error: maxmemory-policy is allkeys-lru/, /^warn: .*append-only/],
    'INFO tells it too',
  )
  const managed = await startTestRedis(t, { appendOnly: true, config: { 'rename-command': ['CONFIG', ''] } })
  t.match(await findings(await managed.client()), [
    /^warn: CONFIG is forbidden here, so appendfsync could not be checked/,
  ])

  const told = async (name: string, value: string): Promise<string[]> => {
    const info = (await client.info()).replace(new RegExp(`${name}:.*`), `${name}:${value}`)
    return findings({
      info: async () => info,
      config: async (_get: string, name: string) => [name, managedValues[name]],
    } as never)
  }
  const managedValues: Record<string, string> = {
    'maxmemory-policy': 'noeviction',
    appendonly: 'yes',
    appendfsync: 'everysec',
  }
  t.match(await told('redis_version', '5.0.7'), [/^error: Redis 5\.0\.7 is too old/])
  t.match(await told('redis_version', '6.0.16'), [/^error: Redis 6\.0\.16 is too old/])
  t.match(await told('redis_version', '6.2.0'), [/^warn: Redis 6\.2\.0 works/])
  t.same(await told('redis_version', '8.2.1'), [])
  t.match(await told('redis_mode', 'cluster'), [/^error: .*cluster mode.*redis\+cluster:\/\//])
})

t.test('keys', async t => {
  t.equal(prefixOf('default'), '{muster:default}')
  t.equal(queueKey('default', 'results'), '{muster:default}:results')
  t.equal(globalKey('workers'), '{muster}:workers')
})

/** A relay before Redis that can fall silent without closing anything, as a host does that lost its power. */
async function silenceableFront(
  t: Test,
  port: number,
): Promise<{ url: string; silence(): void; speakToNewcomers(): void }> {
  const { connect } = await import('node:net')
  const sockets = new Set<Socket>()
  let silent = false
  let muted = new WeakSet<Socket>()
  const server: Server = createServer(near => {
    const far = connect(port, '127.0.0.1')
    sockets.add(near).add(far)
    if (silent) muted.add(near)
    near.on('error', () => undefined).on('close', () => far.destroy())
    far.on('error', () => undefined).on('close', () => near.destroy())
    near.on('data', data => muted.has(near) || far.write(data))
    far.on('data', data => muted.has(near) || near.write(data))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  return {
    url: `redis://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
    silence() {
      silent = true
      muted = new WeakSet(sockets)
    },
    speakToNewcomers() {
      silent = false
    },
  }
}
