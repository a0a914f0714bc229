import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { blobShardOf } from '../../src/payloads/redis/blob-scripts.ts'
import { RedisStore } from '../../src/payloads/redis/redis-store.ts'
import type { RedisTarget } from '../../src/redis/connect/address.ts'
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect/connection.ts'
import { LocalWrites } from '../../src/redis/writes/durable-writes.ts'
import { ReplicatedWrites } from '../../src/redis/writes/replicated-writes.ts'
import { payloadStoreContract } from '../contracts/payload-store-contract.ts'
import { startTestRedis } from '../support/redis.ts'
import { startCluster } from '../support/redis-cluster.ts'
import { startSentinelTrio } from '../support/redis-sentinel.ts'
import { until } from '../support/until.ts'

const log = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' })
const plenty = { maxBytes: 64 * 1024 * 1024 }
const chunkBytes = 512 * 1024
const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')

async function connect(t: Pick<Test, 'teardown'>, target: RedisTarget, purpose: 'commands' | 'writes' = 'commands') {
  const client = await connectRedis({ ...target, purpose, log })
  t.teardown(() => closeRedis(client))
  return client
}

const storeOn = (redis: RedisClient): RedisStore => new RedisStore({ redis, writes: new LocalWrites(redis) })

// All of it before the first test: the file ends with its last test, and with the file what it started.
const server = await startTestRedis(t)
const single = await connect(t, { socketPath: server.socketPath })
const cluster = await startCluster(t)
const clustered = await connect(t, { url: cluster.url })

payloadStoreContract(t, 'RedisStore', async () => {
  await single.flushall()
  return storeOn(single)
})

payloadStoreContract(t, 'RedisStore on a Redis Cluster', async () => {
  for (const index of [0, 1, 2]) await cluster.ask(index, 'FLUSHALL')
  return storeOn(clustered)
})

t.test('on a Redis Cluster blobs are shared out among its servers', async t => {
  const store = storeOn(clustered)
  for (let i = 0; i < 48; i += 1) await store.put(`w${i}/payload`, Buffer.from('x'), plenty)
  const sizes = await Promise.all([0, 1, 2].map(index => cluster.ask(index, 'DBSIZE')))
  t.ok(sizes.every(size => Number(size) > 0))
})

t.test('what is deleted or replaced stays for those who read it, and goes by itself', async t => {
  const store = storeOn(single)
  const content = randomBytes(8 * chunkBytes)
  await store.put('w/a', content, plenty)
  const { chunks, pointers } = blobShardOf('w/a')
  const chunkKey = chunks + ((await single.hget(pointers, 'w/a')) ?? '').split(' ')[0]
  t.equal(await single.pttl(chunkKey), -1)
  const open = await store.get('w/a')
  await store.delete(['w/a'])
  const ttlMs = await single.pttl(chunkKey)
  t.ok(ttlMs > 0, 'the bytes go by themselves')
  await single.pexpire(chunkKey, 1000)
  t.ok(open && (await buffer(open.stream)).equals(content))
  t.ok((await single.pttl(chunkKey)) > 60_000, 'not while somebody reads them')
})

t.test('an upload whose node dies leaves only what goes by itself', async t => {
  await single.flushall()
  let goOn = (): void => undefined
  const source = Readable.from(
    (async function* () {
      yield randomBytes(chunkBytes)
      await new Promise<void>(resolve => {
        goOn = resolve
      })
    })(),
    { objectMode: false },
  )
  const put = storeOn(single).put('w/a', source, plenty)
  await until(async () => (await single.dbsize()) > 0)
  const [key = ''] = await single.keys('*')
  t.match(key, /:chunks:/)
  t.ok((await single.pttl(key)) > 0)
  goOn()
  await put
  t.equal(await single.pttl(key), -1, 'until it is whole')
})

t.test('a blob of which a chunk is missing is never readable', async t => {
  await single.flushall()
  const source = Readable.from(
    (async function* () {
      yield randomBytes(2 * chunkBytes)
      await until(async () => (await single.keys('*:chunks:*')).length > 0)
      const [key = ''] = await single.keys('*:chunks:*')
      await until(async () => (await single.hlen(key)) === 2)
      await single.hdel(key, '0') // a new primary that does not have it
      yield randomBytes(10)
    })(),
    { objectMode: false, highWaterMark: 1 },
  )
  const store = storeOn(single)
  await t.rejects(store.put('w/a', source, plenty), { code: 'redis_unavailable', status: 503 })
  t.equal(await store.get('w/a'), undefined)
})

t.test('a Redis that is away for a moment disturbs neither upload nor download; a full one says so', async t => {
  const server = await startTestRedis(t, { appendOnly: true })
  const redis = await connect(t, { socketPath: server.socketPath })
  const store = storeOn(redis)
  const content = randomBytes(6 * chunkBytes)
  let restarts = 0
  const pieces = async function* () {
    for (let from = 0; from < content.byteLength; from += chunkBytes) {
      yield content.subarray(from, from + chunkBytes)
      if (from === 3 * chunkBytes) {
        await server.kill()
        void server.restart().then(() => {
          restarts += 1
        })
      }
    }
  }
  t.same(await store.put('w/a', Readable.from(pieces(), { objectMode: false, highWaterMark: 1 }), plenty), {
    bytes: content.byteLength,
    sha256: sha256(content),
  })
  t.equal(restarts, 1)
  const found = await store.get('w/a')
  const received: Buffer[] = []
  for await (const chunk of found?.stream ?? []) {
    received.push(chunk)
    if (received.length === 1) {
      await server.kill()
      void server.restart().then(() => {
        restarts += 1
      })
    }
  }
  t.ok(Buffer.concat(received).equals(content))
  await until(() => restarts === 2)

  const admin = await server.client()
  await admin.config('SET', 'maxmemory', '1')
  await t.rejects(store.put('w/b', randomBytes(chunkBytes), plenty), { code: 'overloaded', status: 503 })
  await admin.config('SET', 'maxmemory', '0')
  t.equal(await store.get('w/b'), undefined)
})

t.test('replicated: nothing is acknowledged before a replica has all of it', async t => {
  const primary = await startTestRedis(t, { tcp: true })
  const replica = await startTestRedis(t)
  await (await replica.client()).replicaof('127.0.0.1', Number(new URL(primary.url ?? '').port))
  const target = { socketPath: primary.socketPath }
  const redis = await connect(t, target)
  await until(async () => /state=online/.test(await redis.info('replication')))
  const writes = new ReplicatedWrites({ commands: redis, connections: [await connect(t, target, 'writes')] })
  const store = new RedisStore({ redis, writes })
  process.kill(replica.pid, 'SIGSTOP')
  let isAcknowledged = false
  const put = store.put('w/a', randomBytes(2 * chunkBytes), plenty).then(() => {
    isAcknowledged = true
  })
  await until(async () => (await redis.hget(blobShardOf('w/a').pointers, 'w/a')) !== null)
  await until(async () => /^blocked_clients:1\r$/m.test(await redis.info('clients')))
  t.notOk(isAcknowledged, 'the primary has it, and nobody else')
  process.kill(replica.pid, 'SIGCONT')
  await put
  t.ok(isAcknowledged)
})

t.test('replicated: what is acknowledged survives the loss of the primary; alone it acknowledges nothing', async t => {
  const trio = await startSentinelTrio(t)
  await trio.settled()
  const redis = await connect(t, trio.target)
  const connections = [await connect(t, trio.target, 'writes'), await connect(t, trio.target, 'writes')]
  const writes = new ReplicatedWrites({ commands: redis, connections })
  const store = new RedisStore({ redis, writes })
  const content = randomBytes(20 * chunkBytes + 3)
  await store.put('w/kept', content, plenty)
  const lost = await trio.primary()
  await trio.kill(lost, 'SIGKILL')
  await trio.switchedFrom(lost)
  const found = await store.get('w/kept')
  t.ok(found && (await buffer(found.stream)).equals(content))

  const last = await trio.primary()
  await until(async () => (await store.put('w/two', Buffer.from('two of three'), plenty)).bytes > 0)
  for (const index of [0, 1, 2]) if (index !== lost && index !== last) await trio.kill(index, 'SIGKILL')
  await t.rejects(store.put('w/alone', randomBytes(2 * chunkBytes), plenty), { code: 'redis_unavailable', status: 503 })
})
