/** Acknowledged writes, on a real primary with a real replica. */
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { closeRedis, connectRedis } from '../../src/redis/connect/connection.ts'
import { isRedisAway, isRedisFull, NotDurableError } from '../../src/redis/redis-errors.ts'
import { Script } from '../../src/redis/script.ts'
import { type DurableWrites, LocalWrites } from '../../src/redis/writes/durable-writes.ts'
import { openWrites } from '../../src/redis/writes/replicated-writes.ts'
import { startCluster } from '../support/redis-cluster.ts'
import { type RedisPair, startRedisPair } from '../support/redis-pair.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'

const log = pino({ level: 'silent' })
const push = new Script<number>('test_push', `return redis.call('RPUSH', KEYS[1], ARGV[1])`)
const look = new Script<string | null>('test_look', `return redis.call('GET', KEYS[1])`)
const drop = new Script<number>('test_drop', `return redis.call('DEL', KEYS[1])`)
const fault = new Script<number>('test_fault', `return redis.error_reply('ERR of its own')`)
const list = '{q}:list'

async function setUp(t: Test, pair: Pick<RedisPair, 'url'>, url = pair.url) {
  const commands = await connectRedis({ url, purpose: 'commands', log })
  const { writes, close } = await openWrites('replicated', { url }, commands, log)
  t.teardown(async () => {
    await close()
    await closeRedis(commands)
  })
  return { commands, writes }
}

/** What a write that is not acknowledged says. */
async function refusal(t: Test, call: Promise<unknown>): Promise<NotDurableError> {
  const error = await call.then(
    value => t.fail(`acknowledged: ${String(value)}`),
    (error: unknown) => error,
  )
  t.ok(error instanceof NotDurableError, String(error))
  t.ok(isRedisAway(error), 'it passes like an outage')
  return error as NotDurableError
}

t.test('a write is acknowledged once the replica has it', async t => {
  const pair = await startRedisPair(t)
  const { writes } = await setUp(t, pair)
  t.equal(await writes.run(push, [list], ['a']), 1)
  t.strictSame(await pair.onReplica.lrange(list, 0, -1), ['a'])

  pair.freezeReplica()
  const short = await refusal(t, writes.run(push, [list], ['b']))
  t.equal(short.mayHaveHappened, true)
  t.equal(await pair.onPrimary.llen(list), 2, 'the primary has it all the same')
  const seen = await refusal(t, writes.run(look, ['{q}:other']))
  t.equal(seen.mayHaveHappened, true, 'a reading does not count either: what it saw may be taken back')
  await pair.thawReplica()
  t.equal(await writes.run(look, ['{q}:other']), null)
  t.strictSame(await pair.onReplica.lrange(list, 0, -1), ['a', 'b'])
})

t.test('writes that come together travel together, and each has its own answer', async t => {
  const pair = await startRedisPair(t)
  const { writes } = await setUp(t, pair)
  await writes.run(push, [list], ['0'])
  await pair.onPrimary.config('RESETSTAT')
  const calls = Array.from({ length: 120 }, (_, index) => writes.run(push, [list], [String(index)]))
  const faulty = writes.run(fault, [list])
  await t.rejects(faulty, /ERR of its own/)
  t.strictSame(
    (await Promise.all(calls)).sort((a, b) => a - b),
    Array.from({ length: 120 }, (_, index) => index + 2),
  )
  const waits = Number(/cmdstat_wait:calls=(\d+)/.exec(await pair.onPrimary.info('commandstats'))?.[1])
  t.ok(waits >= 1 && waits <= 6, `${waits} waits for 121 writes`)
})

t.test('a server that does not have the script', async t => {
  const pair = await startRedisPair(t)
  const { writes } = await setUp(t, pair)
  await writes.run(push, [list], ['a'])
  await pair.onPrimary.script('FLUSH')
  t.strictSame(await Promise.all(['b', 'c'].map(item => writes.run(push, [list], [item]))), [2, 3])
  t.strictSame(await pair.onReplica.lrange(list, 0, -1), ['a', 'b', 'c'], 'each was carried out once')
  await pair.onPrimary.script('FLUSH')
  pair.freezeReplica()
  await refusal(t, writes.run(push, [list], ['d']))
  await pair.thawReplica()
})

t.test('a connection that is cut between the write and its answer', async t => {
  const pair = await startRedisPair(t)
  const proxy = await startTcpProxy(t, Number(new URL(pair.url).port))
  const { writes } = await setUp(t, pair, `redis://127.0.0.1:${proxy.port}`)
  t.equal(await writes.run(push, [list], ['a']), 1)
  const sent = proxy.hold()
  const call = writes.run(push, [list], ['b'])
  await sent
  await until(async () => (await pair.onPrimary.llen(list)) === 2)
  await until(async () => (await pair.onReplica.llen(list)) === 2)
  proxy.cut()
  const error = await refusal(t, call)
  t.equal(error.mayHaveHappened, true, 'nobody knows, so nobody is told that it is kept')
  await until(
    async () =>
      await writes
        .run(push, [list], ['c'])
        .then(() => true)
        .catch(() => false),
  )
  t.strictSame(await pair.onPrimary.lrange(list, 0, -1), ['a', 'b', 'c'], 'and it was not sent again by itself')
})

t.test('no primary: refused at once, nothing written; a silent one: refused in time', async t => {
  const pair = await startRedisPair(t)
  const { writes } = await setUp(t, pair)
  await writes.run(push, [list], ['a'])
  process.kill(pair.primary.pid, 'SIGSTOP')
  await refusal(t, writes.run(push, [list], ['b']))
  process.kill(pair.primary.pid, 'SIGCONT')
  await pair.primary.kill()
  await until(async () => !(await refusal(t, writes.run(push, [list], ['c']))).mayHaveHappened)
})

t.test('an operation over the connection for commands is confirmed', async t => {
  const pair = await startRedisPair(t)
  const { writes, commands } = await setUp(t, pair)
  const operation = async (): Promise<string> => {
    await commands.set('{q}:a', '1')
    await commands.set('{q}:b', '2')
    return 'done'
  }
  t.equal(await writes.confirm('{q}:a', operation), 'done')
  t.equal(await pair.onReplica.get('{q}:b'), '2')
  await t.rejects(
    writes.confirm('{q}:a', () => Promise.reject(new Error('its own'))),
    /its own/,
  )

  pair.freezeReplica()
  t.equal((await refusal(t, writes.confirm('{q}:a', operation))).mayHaveHappened, true)
  await pair.thawReplica()

  await t.test('not when the primary was another one in between', async t => {
    const switched = async (): Promise<void> => {
      await operation()
      // A new history, over the same connections: what was written under the old one may be gone.
      await pair.onPrimary.replicaof('127.0.0.1', 1)
      await pair.onPrimary.replicaof('NO', 'ONE')
      await until(async () => /state=online/.test(await pair.onPrimary.info('replication')))
    }
    t.match((await refusal(t, writes.confirm('{q}:a', switched))).message, /switched/)
    t.equal(await writes.confirm('{q}:a', operation), 'done', 'the next one is')
  })

  await t.test('not when the connection was another one in between', async t => {
    const id = await commands.client('ID')
    const reconnected = async (): Promise<void> => {
      await operation()
      await pair.onPrimary.client('KILL', 'ID', String(id))
      await until(async () =>
        commands.client('ID').then(
          now => now !== id,
          () => false,
        ),
      )
    }
    t.match((await refusal(t, writes.confirm('{q}:a', reconnected))).message, /switched/)
  })
})

t.test('a full Redis takes what makes room', async t => {
  const pair = await startRedisPair(t)
  const { writes } = await setUp(t, pair)
  await writes.run(push, [list], ['a'])
  await pair.onPrimary.config('SET', 'maxmemory', '1')
  const error = await writes.run(push, [list], ['b']).catch((error: unknown) => error)
  t.ok(isRedisFull(error), String(error))
  t.equal(await writes.run(drop, [list]), 1)
  t.equal(await pair.onReplica.exists(list), 0)
})

t.test('on a Redis Cluster each queue waits for the replica of its own master', async t => {
  const cluster = await startCluster(t)
  const owner = await cluster.ownerOf(list)
  const other = ['{a}:list', '{b}:list', '{c}:list', '{d}:list', '{e}:list', '{f}:list']
  const owners = await Promise.all(other.map(key => cluster.ownerOf(key)))
  const elsewhere = other[owners.findIndex(index => index !== owner)] as string
  await cluster.addReplica(owner)
  const { writes, commands } = await setUp(t, cluster)
  const late = refusal(t, writes.run(push, [elsewhere], ['a']))
  t.strictSame(await Promise.all(['a', 'b'].map(item => writes.run(push, [list], [item]))), [1, 2])
  t.equal(await writes.confirm(list, () => commands.llen(list)), 2)
  t.equal((await late).mayHaveHappened, true)
  await refusal(
    t,
    writes.confirm(elsewhere, () => commands.llen(elsewhere)),
  )

  await t.test('and follows when it fails over', async t => {
    await cluster.kill(owner, 'SIGKILL')
    await until(async () => /role:master/.test(String(await cluster.ask(3, 'INFO', 'replication'))))
    // The new master has no replica, so it says no; but it is asked, and has what was acknowledged.
    await until(async () => {
      const error = await writes.run(push, [list], ['c']).catch((error: unknown) => error)
      if (!isRedisAway(error)) throw new Error(`acknowledged, or worse: ${String(error)}`)
      return error instanceof NotDurableError && error.mayHaveHappened && /second Redis server/.test(error.message)
    })
    t.match(await commands.lrange(list, 0, 1), ['a', 'b'])
  })
})

t.test('local writes wait for nobody', async t => {
  const pair = await startRedisPair(t)
  const commands = await connectRedis({ url: pair.url, purpose: 'commands', log })
  t.teardown(() => closeRedis(commands))
  const writes: DurableWrites = new LocalWrites(commands)
  pair.freezeReplica()
  t.equal(writes.reaches, 'local')
  t.equal(await writes.run(push, [list], ['a']), 1, 'one that waits for the replica would be refused')
  t.equal(await writes.confirm(list, async () => 'b'), 'b')
  await pair.thawReplica()
})
