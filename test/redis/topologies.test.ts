import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { StartupError } from '../../src/errors.ts'
import { addressOf, describeAddress, parseRedisUrl } from '../../src/redis/connect/address.ts'
import {
  closeRedis,
  connectionEpoch,
  connectRedis,
  type RedisClient,
  reconnect,
} from '../../src/redis/connect/connection.ts'
import { checkRedis, type RedisFinding } from '../../src/redis/inspect/checks.ts'
import { isRedisAway } from '../../src/redis/redis-errors.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { startApiOn } from '../support/api.ts'
import { type SentinelTrio, startSentinelTrio } from '../support/redis-sentinel.ts'
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

t.test('what MUSTER_REDIS_URL may say', async t => {
  const a = { host: 'a', port: 26_379 }
  t.strictSame(parseRedisUrl('redis://host'), { kind: 'single', tls: false, host: 'host', port: 6379, db: 0 })
  t.match(parseRedisUrl('rediss://me:p%40ss%2F@[::1]:7000/3'), {
    tls: true,
    host: '::1',
    port: 7000,
    db: 3,
    username: 'me',
    password: 'p@ss/',
  })
  t.strictSame(parseRedisUrl('redis+sentinel://a,[fe80::1]:5,c.example:7/main'), {
    kind: 'sentinel',
    tls: false,
    sentinels: [a, { host: 'fe80::1', port: 5 }, { host: 'c.example', port: 7 }],
    name: 'main',
    db: 0,
    sentinelCredentials: {},
  })
  const sentinelsOf = (url: string): unknown => {
    const address = parseRedisUrl(url)
    return address.kind === 'sentinel' && address.sentinelCredentials
  }
  t.strictSame(sentinelsOf('redis+sentinel://me:pw@a/main'), { username: 'me', password: 'pw' })
  t.strictSame(sentinelsOf('redis+sentinel://me:pw@a/main?sentinelPassword='), {})
  t.strictSame(sentinelsOf('redis+sentinel://me:pw@a/main/2?sentinelUsername=w&sentinelPassword=x%2F'), {
    username: 'w',
    password: 'x/',
  })
  t.match(parseRedisUrl('rediss+cluster://:pw@a:1,b'), {
    kind: 'cluster',
    tls: true,
    password: 'pw',
    servers: [
      { host: 'a', port: 1 },
      { host: 'b', port: 6379 },
    ],
  })
  const faults: [string, RegExp][] = [
    ['host:6379', /must look like/],
    ['http://host', /must look like/],
    ['redis://', /names no host/],
    ['redis://:s3cret@', /names no host/],
    ['redis+sentinel://:s3cret@/main', /names no host/],
    ['redis+sentinel://a,b', /must name the primary/],
    ['redis+sentinel://a,,b/main', /host that cannot be read/],
    ['redis+sentinel://a/ma in', /must name the primary with letters/],
    ['redis+sentinel://a/main/s3cret', /database by its number/],
    ['redis+sentinel://a/main?sentinelPasswort=s3cret', /takes only the parameters/],
    ['redis+sentinel://a/main?sentinelUsername=s3cret', /no sentinelPassword/],
    ['redis+cluster://a/1', /only database 0/],
    ['redis+cluster://a?x=s3cret', /redis\+sentinel:\/\/ only/],
    ['redis://a,b', /several hosts/],
    ['redis://a:70000', /cannot be read/],
    ['redis://me:s3cret/x@a', /%2F/],
    ['redis://me:s3cret%@a', /%25/],
    ['redis://a/1/2', /after the number/],
  ]
  for (const [url, fault] of faults) {
    t.throws(() => parseRedisUrl(url), fault, url)
    t.throws(() => addressOf({ url }), StartupError)
    try {
      readSettings({ MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_REDIS_URL: url })
      t.fail(url)
    } catch (error) {
      t.match((error as Error).message, /MUSTER_REDIS_URL/)
      t.notMatch((error as Error).message, /s3cret/, url)
    }
  }
  for (const url of ['rediss://me:***@a:1/2', 'redis+sentinel://me:***@a:1,b:2/main/2', 'redis+cluster://a:1,[::1]:2'])
    t.equal(describeAddress(parseRedisUrl(url)), url)
  t.throws(
    () =>
      readSettings({ MUSTER_REDIS_URL: 'redis://a', MUSTER_REDIS_TLS_NAME: 'x', MUSTER_CONFIG_FILE: '/nonexistent' }),
    /MUSTER_REDIS_TLS_NAME is set, but MUSTER_REDIS_URL does not use TLS/,
  )
})

t.test('Sentinel: the same clients go on after every kind of switch', async t => {
  const said = t.capture(console, 'error')
  const trio = await startSentinelTrio(t)
  const { log, messages } = recordingLog()
  const [commands, writes, subscriber] = await Promise.all(
    (['commands', 'writes', 'subscriber'] as const).map(purpose => connectRedis({ ...trio.target, purpose, log })),
  )
  if (!commands || !writes || !subscriber) throw new Error('not connected')
  t.teardown(() => Promise.all([commands, writes, subscriber].map(closeRedis)))
  const heard: string[] = []
  subscriber.on('message', (_channel: string, message: string) => heard.push(message))
  await subscriber.subscribe('news')
  await finds(commands, [])
  await commands.set('kept', '1')
  t.equal(await writes.wait(1, 2000).then(count => count >= 1), true)
  const switches = await listenForSwitches(t, trio)

  const goesOn = async (t: Test, what: string, before: number): Promise<void> => {
    await switches.next()
    await until(() => works(Promise.all([commands, writes].map(client => client.get('kept')))))
    const now = await trio.switchedFrom(before)
    for (const client of [commands, writes]) {
      t.equal((client as Redis).stream.remotePort, trio.ports[now], 'on the new primary')
      // Until a replica follows the new primary, it takes no writes.
      await until(() => works(client.set('kept', what)))
    }
    await until(async () => {
      await commands.publish('news', what).catch(() => undefined)
      return heard.includes(what)
    })
    t.equal(await trio.ask(now, 'GET', 'kept'), what)
  }

  await t.test('planned', async t => {
    const before = await trio.primary()
    const epochs = [commands, writes].map(connectionEpoch)
    const failover = trio.failover()
    await goesOn(t, 'planned', before)
    await failover
    for (const [index, client] of [commands, writes].entries())
      t.ok(connectionEpoch(client) > (epochs[index] as number), 'another connection')
    await trio.settled()
  })

  await t.test('SIGKILL of the primary', async t => {
    const before = await trio.primary()
    await trio.kill(before, 'SIGKILL')
    await goesOn(t, 'killed', before)
    await trio.restart(before)
    await trio.settled()
  })

  await t.test('SIGSTOP of the primary: what is in flight is refused, not held', async t => {
    const before = await trio.primary()
    await trio.kill(before, 'SIGSTOP')
    const inFlight = errorOf(writes.set('kept', 'lost'))
    await goesOn(t, 'stopped', before)
    const error = await inFlight
    t.ok(isRedisAway(error), String(error))
    await trio.restart(before)
    await trio.settled()
  })

  await t.test('two Sentinels away: nobody notices', async t => {
    await trio.killSentinel(0, 'SIGKILL')
    await trio.killSentinel(1, 'SIGSTOP')
    const another = await connectRedis({ ...trio.target, purpose: 'commands', log })
    t.equal(await another.get('kept'), 'stopped', 'one is enough to find the primary')
    await finds(another, [{ level: 'warn', message: /2 of the Sentinels .* did not answer/ }])
    const epoch = connectionEpoch(another)
    reconnect(another)
    await until(() => works(another.ping()))
    t.ok(connectionEpoch(another) > epoch, 'reconnected')
    await closeRedis(another)
    await trio.killSentinel(1, 'SIGCONT')
  })

  await t.test('what weakens it is said', async t => {
    const primary = await trio.primary()
    await trio.ask(primary, 'CONFIG', 'SET', 'min-replicas-to-write', '0')
    await trio.ask(primary, 'CONFIG', 'SET', 'appendonly', 'no')
    const { url } = trio.target
    const one = await connectRedis({
      url: url.replace(/,.*\//, '/'),
      purpose: 'commands',
      log,
      readyWithinMs: 3000,
    }).catch(() => undefined)
    t.equal(one, undefined, 'its only Sentinel is dead')
    await finds(commands, [
      { level: 'warn', message: /no append-only file.*on all servers/ },
      { level: 'warn', message: /min-replicas-to-write is 0/ },
      { level: 'warn', message: /1 of the Sentinels/ },
    ])
    const replica = await connectRedis({
      url: `redis://127.0.0.1:${trio.ports[(primary + 1) % 3]}`,
      purpose: 'commands',
      log,
    })
    t.match(await checkRedis(replica), [{ level: 'error', message: /is a replica.*redis\+sentinel:\/\// }])
    await closeRedis(replica)
  })
  t.strictSame(said.args(), [], 'nothing on the console')
  const count = (start: string): number => messages.filter(message => message.startsWith(start)).length
  await until(() => count('Redis is away') === count('Redis is back'))
  t.ok(count('Redis is away') >= 9, `${count('Redis is away')} outages are told of, for 3 clients and 3 switches`)
})

t.test('Sentinel with TLS and passwords', async t => {
  const trio = await startSentinelTrio(t, { tls: true, acl: true })
  const { log, messages } = recordingLog()
  const client = await connectRedis({ ...trio.target, purpose: 'commands', log })
  t.teardown(() => closeRedis(client))
  await finds(client, [])

  const { url, caFile = '', tlsName = '' } = trio.target
  const refused = async (target: { url: string; caFile?: string; tlsName?: string }): Promise<string> => {
    const error = await errorOf(connectRedis({ ...target, purpose: 'commands', log }))
    t.type(error, StartupError)
    t.notMatch(String(error), /ss%2Fw|ss\/w|w4tch/, 'no password')
    return String(error)
  }
  t.match(await refused({ url, caFile }), /another name.*MUSTER_REDIS_TLS_NAME/)
  t.match(await refused({ url, tlsName }), /unknown authority.*MUSTER_REDIS_CA_FILE/)
  t.match(await refused({ url, tlsName, caFile: '/nonexistent' }), /MUSTER_REDIS_CA_FILE is \/nonexistent/)
  t.match(
    await refused({ url: url.replace(/\?.*/, ''), caFile, tlsName }),
    /Sentinels do not let us in.*sentinelPassword/,
  )
  t.match(
    await refused({ url: url.replace(/:pa[^@]*@/, ':wrong@'), caFile, tlsName }),
    /does not let us in: .*WRONGPASS/,
  )
  t.match(
    String(
      await errorOf(
        connectRedis({
          url: url.replace('/muster?', '/nobody?'),
          caFile,
          tlsName,
          purpose: 'commands',
          log,
          readyWithinMs: 10_000,
        }),
      ),
    ),
    /knows no primary with the name "nobody"/,
  )

  const api = await startApiOn(t, trio.target)
  await t.test('a queue lives on it', t => roundTrip(t, api, 'default'))
  const workId = (await api.call('PUT', '/enqueue?type=noop', { json: { payload: 1 } })).body['Work ID']
  await trio.failover()
  await until(async () => (await api.call('PUT', '/enqueue?type=noop', { json: { payload: 1 } })).status === 200)
  t.match((await api.call('GET', `/jobs/${workId}`)).body, { state: 'waiting' }, 'and is still there after a switch')
  t.notMatch(messages.join(), /ss%2Fw|ss\/w|w4tch/)
})

/** Looks until just this is found: a Sentinel that is slow to answer for a moment is a finding, too. */
async function finds(client: RedisClient, expected: readonly { level: string; message: RegExp }[]): Promise<void> {
  let found: readonly RedisFinding[] = []
  await until(async () => {
    found = await checkRedis(client)
    const isExpected = ({ level, message }: RedisFinding, index: number): boolean =>
      level === expected[index]?.level && expected[index].message.test(message)
    return found.length === expected.length && found.every(isExpected)
  }).catch(error => {
    throw new Error(`${(error as Error).message}\n${JSON.stringify(found, null, 1)}`)
  })
}

/** Tells when a Sentinel publishes a switch, by a connection of its own. */
async function listenForSwitches(t: Test, trio: SentinelTrio): Promise<{ next(): Promise<void> }> {
  const client = new Redis({ host: '127.0.0.1', port: trio.sentinelPorts[2] as number })
  t.teardown(() => client.disconnect())
  let count = 0
  client.on('message', () => {
    count += 1
  })
  await client.subscribe('+switch-master')
  let seen = 0
  return {
    async next() {
      await until(() => count > seen)
      seen = count
    },
  }
}
