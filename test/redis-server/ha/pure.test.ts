import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { type RedisInfo, readInfo } from '../../../src/redis/inspect/info.ts'
import {
  authorityDays,
  expiresAtMs,
  makeServerCertificate,
  namesOf,
  serverDays,
} from '../../../src/redis-server/ha/certificates.ts'
import { mergeSentinelConf } from '../../../src/redis-server/ha/config-files.ts'
import { evaluate } from '../../../src/redis-server/ha/group-status.ts'
import type { SentinelInfo } from '../../../src/redis-server/ha/probe.ts'
import { runRedisInit, runRedisSecrets } from '../../../src/redis-server/ha/redis-command.ts'
import { type Host, parseHosts, readServerConfig } from '../../../src/redis-server/ha/replication-group.ts'
import { holdsNoData } from '../../../src/redis-server/ha/run-files.ts'
import { makeSecrets, readSecrets } from '../../../src/redis-server/ha/secrets.ts'
import {
  type BarredServer,
  barOf,
  decideStart,
  endsWithinMs,
  type Situation,
} from '../../../src/redis-server/ha/start-role.ts'
import { parseRedisUrl } from '../../../src/settings/redis-url.ts'
import { patienceMs } from '../../support/until.ts'

const hosts = parseHosts('a=10.0.1.10, b=10.0.2.10,c=10.0.3.10')
const [a, b, c] = hosts as [Host, Host, Host]
const says = (host: Host, primary: Host, configEpoch = 1, isFailingOver = false) => ({
  ...{ host: host.name, primary: primary.address, configEpoch, isFailingOver },
})
const server = (host: Host, state: 'empty' | 'cold' | 'live' | 'primary') => ({
  host: host.name,
  role: state === 'primary' ? ('primary' as const) : ('replica' as const),
  hasData: state !== 'empty',
  offset: state === 'live' ? 4711 : 0,
})
const downAfterMs = 2000

t.test('the start rule', async t => {
  const all = [says(a, a), says(b, a), says(c, a)]
  const cold = [server(b, 'cold'), server(c, 'cold')]
  const cases: [name: string, situation: Partial<Situation>, expected: object][] = [
    ['nobody answers', { sentinels: [] }, { act: 'wait', isNamed: false }],
    ['only its own Sentinel answers', { sentinels: [says(a, a)] }, { act: 'wait', isNamed: false }],
    ['two disagree', { sentinels: [says(a, a), says(b, b, 2)] }, { act: 'wait', isNamed: false }],
    [
      'two name a stranger',
      { sentinels: [says(b, { ...a, address: '10.9.9.9' }), says(c, { ...a, address: '10.9.9.9' })] },
      { act: 'wait', isNamed: false },
    ],
    ['two name another', { sentinels: [says(b, b, 2), says(c, b, 2)] }, { act: 'replica', of: b }],
    ['its own Sentinel is stale', { sentinels: [says(a, a), says(b, b, 2), says(c, b, 2)] }, { act: 'replica', of: b }],
    ['another is named and dead', { sentinels: [says(a, b), says(c, b)], servers: [] }, { act: 'replica', of: b }],
    ['two have not heard yet', { sentinels: [says(a, a), says(b, b, 2), says(c, a)] }, { act: 'wait', isNamed: false }],
    [
      'a failover is under way',
      { sentinels: [says(a, a), says(b, a, 1, true)] },
      { act: 'wait', wantsFailover: false },
    ],
    [
      'a failover never ends',
      { sentinels: [says(a, a), says(b, a, 1, true)], namedForMs: 1e6 },
      { act: 'wait', wantsFailover: false },
    ],
    ['all were down', { servers: cold }, { act: 'primary' }],
    [
      'all were down, one is lost',
      { sentinels: [says(a, a), says(b, a)], servers: [server(b, 'cold')] },
      { act: 'primary' },
    ],
    ['the others are away', { servers: [] }, { act: 'primary' }],
    ['another has lived on', { servers: [server(b, 'live')] }, { act: 'wait', isNamed: true, wantsFailover: false }],
    [
      'it should have taken over',
      { servers: [server(b, 'live')], namedForMs: 6000 },
      { act: 'wait', wantsFailover: true },
    ],
    [
      'it cannot take over',
      { servers: [server(b, 'live')], namedForMs: endsWithinMs(downAfterMs) },
      { act: 'primary' },
    ],
    [
      'another serves already',
      { servers: [server(b, 'primary')], namedForMs: 1e6 },
      { act: 'wait', wantsFailover: true },
    ],
    ['the very first start', { isEmpty: true, servers: [server(b, 'empty')] }, { act: 'primary' }],
    ['the very first start, alone so far', { isEmpty: true, servers: [] }, { act: 'wait', isNamed: true }],
    [
      'its disk is empty, others have data',
      { isEmpty: true, servers: cold, namedForMs: 1e9 },
      { act: 'wait', wantsFailover: true },
    ],
    [
      'its disk is empty, one other too',
      { isEmpty: true, servers: [server(b, 'empty'), server(c, 'cold')], namedForMs: 1e9 },
      { act: 'wait', wantsFailover: true },
    ],
  ]
  for (const [name, given, expected] of cases) {
    const decision = decideStart({
      ...{ own: a, hosts, sentinels: all, servers: [], isEmpty: false, downAfterMs, namedForMs: 0, ...given },
    })
    t.match(decision, expected, `${name}: ${decision.reason}`)
    t.ok(decision.reason)
  }
  const five = parseHosts('a=10.0.0.1,b=10.0.0.2,c=10.0.0.3,d=10.0.0.4,e=10.0.0.5')
  const two = five.slice(0, 2).map(host => says(host, five[1] as Host))
  const ofFive = { own: five[0] as Host, hosts: five, servers: [], isEmpty: false, downAfterMs, namedForMs: 0 }
  t.match(decideStart({ ...ofFive, sentinels: two }), { act: 'wait' }, 'two of five are no majority')
})

t.test('why Sentinel may not promote a server that was started as a replica', async t => {
  const [a, , c] = hosts as [Host, Host, Host]
  const server = (host: Host, offset = 0) => ({ host: host.name, role: 'replica' as const, hasData: true, offset })
  const cases: [name: string, given: Partial<BarredServer>, reason: RegExp | undefined][] = [
    ['it has data, the primary is away', { barredForMs: 9999 }, /^a may have newer data/],
    ['for long', { barredForMs: 10_000 }, undefined],
    ['the primary is back, and not copied yet', { servers: [server(a)] }, /^a may have newer data/],
    ['another replica was started, too', { servers: [server(c)] }, /^a may have newer data/],
    ['another replica has lived on', { servers: [server(c, 7)], barredForMs: 119_999 }, /^c has followed the primary/],
    ['and cannot take over', { servers: [server(c, 7)], barredForMs: 120_000 }, undefined],
    ['it has followed, and so has another', { servers: [server(c, 7)], hasFollowed: true }, undefined],
    ['it is empty', { wasEmpty: true, servers: [server(a), server(c)], barredForMs: 1e9 }, /is empty/],
    ['it was empty, and has copied a primary', { wasEmpty: true, hasFollowed: true }, undefined],
  ]
  for (const [name, given, reason] of cases) {
    const bar = barOf({ primary: a, wasEmpty: false, barredForMs: 0, hasFollowed: false, servers: [], ...given })
    if (reason === undefined) t.equal(bar, undefined, name)
    else t.match(bar, reason, name)
  }
})

t.test('hosts', async t => {
  const faults = (text: string): string => {
    try {
      parseHosts(text)
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  t.equal(faults('a=10.0.0.1,b=10.0.0.2,c=10.0.0.3'), '')
  t.match(faults('a=10.0.0.1,b=10.0.0.2'), /there are 2 hosts; it takes 3/)
  t.match(faults('a=10.0.0.1,b=10.0.0.2,c=10.0.0.3,d=10.0.0.4'), /there are 4/)
  t.match(faults('a=10.0.0.1,b=10.0.0.1,c=10.0.0.3'), /two hosts have the address 10.0.0.1/)
  t.match(faults('a=10.0.0.1,a=10.0.0.2,c=10.0.0.3'), /two hosts have the name a/)
  t.match(faults('A=10.0.0.1,b=host,c=10.0.0.3'), /"A=10.0.0.1" is not NAME=ADDRESS.*address of b \("host"\)/)
})

t.test('certificates are strict enough for anybody', async t => {
  const nowMs = Date.now()
  const secrets = await makeSecrets(['redis.example'], nowMs)
  const authority = new X509Certificate(secrets.caCertificate)
  const server = new X509Certificate(secrets.serverCertificate)
  t.ok(authority.ca)
  t.notOk(server.ca)
  t.ok(server.checkIssued(authority))
  t.ok(server.verify(authority.publicKey))
  const folder = t.testdir({ ca: secrets.caCertificate, server: secrets.serverCertificate })
  const openssl = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)('openssl', args, { cwd: folder, timeout: patienceMs })).stdout
  t.match(await openssl('verify', '-x509_strict', '-CAfile', 'ca', '-purpose', 'sslserver', 'server'), 'server: OK')
  t.match(await openssl('verify', '-x509_strict', '-CAfile', 'ca', '-purpose', 'sslclient', 'server'), 'server: OK')
  const ofAuthority = await openssl('x509', '-in', 'ca', '-noout', '-text')
  t.match(ofAuthority, /Basic Constraints: critical\s+CA:TRUE, pathlen:0\s/)
  t.match(ofAuthority, /Key Usage: critical\s+Certificate Sign, CRL Sign\s/)
  const ofServer = await openssl('x509', '-in', 'server', '-noout', '-text')
  t.match(ofServer, /Version: 3 /)
  t.match(ofServer, /Basic Constraints: critical\s+CA:FALSE\s/)
  t.match(ofServer, /[^d] Key Usage: critical\s+Digital Signature\s/)
  t.match(ofServer, /TLS Web Server Authentication, TLS Web Client Authentication\s/)
  t.ok(server.checkHost('muster-redis'))
  t.notOk(server.checkHost('elsewhere'))
  t.strictSame(namesOf(secrets.serverCertificate), ['muster-redis', 'localhost', 'redis.example'])
  const day = 24 * 60 * 60_000
  t.ok(Math.abs(expiresAtMs(secrets.serverCertificate) - nowMs - serverDays * day) < 2000)
  t.ok(Math.abs(expiresAtMs(secrets.caCertificate) - nowMs - authorityDays * day) < 2000)
  const late = await makeServerCertificate(
    { certificate: secrets.caCertificate, key: secrets.caKey },
    [],
    Date.UTC(2055, 1, 3),
  )
  t.match(new X509Certificate(late.certificate).validFrom, /Feb {2}2 .* 2055/, 'years from 2050 on')
})

t.test('muster redis secrets', async t => {
  const out = join(t.testdir(), 'secrets.json')
  const printed: string[] = []
  const print = (line: string): unknown => printed.push(line)
  await runRedisSecrets({ out, hostsNames: 'x.example' }, print)
  t.equal((await stat(out)).mode & 0o777, 0o600)
  const first = await readSecrets(out)
  t.equal(new Set(Object.values(first.passwords)).size, 5)
  await t.rejects(runRedisSecrets({ out }, print), /exists, and secrets are not overwritten/)
  await t.rejects(runRedisSecrets({ out: `${out}2`, hostsNames: 'a b' }, print), /is no DNS name/)

  await runRedisSecrets({ out, renewCertificate: true }, print)
  const renewed = await readSecrets(out)
  t.equal((await stat(out)).mode & 0o777, 0o600)
  t.strictSame({ ...renewed, serverCertificate: '', serverKey: '' }, { ...first, serverCertificate: '', serverKey: '' })
  t.not(renewed.serverKey, first.serverKey)
  t.match(namesOf(renewed.serverCertificate), ['muster-redis', 'localhost', 'x.example'])
  t.ok(new X509Certificate(renewed.serverCertificate).verify(new X509Certificate(first.caCertificate).publicKey))

  await writeFile(out, '{"secret": ')
  await t.rejects(readSecrets(out), { message: /it is not JSON/ })
  await writeFile(out, JSON.stringify({ ...first, caKey: '', passwords: { ...first.passwords, peer: undefined } }))
  await t.rejects(readSecrets(out), { message: /lack caKey, passwords.peer/ })
  await writeFile(out, JSON.stringify({ ...first, passwords: { ...first.passwords, peer: 'short' } }))
  await t.rejects(readSecrets(out), { message: /passwords of peer must have 16/ })
  for (const secret of [...Object.values(first.passwords), first.caKey]) t.notOk(printed.join('\n').includes(secret))
})

const init = {
  ...{ hosts: 'a=10.0.1.10,b=10.0.2.10,c=10.0.3.10', name: 'muster', port: '6379', sentinelPort: '26379', tls: true },
  downAfterMs: '2000',
}

t.test('muster redis init', async t => {
  const out = join(t.testdir(), 'redis')
  const lines: string[] = []
  const write = (options: object = {}): Promise<void> => {
    lines.length = 0
    return runRedisInit({ ...init, out, ...options }, line => lines.push(line))
  }
  const read = (...path: string[]): Promise<string> => readFile(join(out, ...path), 'utf8')
  await write({ maxMemoryMb: '512' })
  const secrets = await readSecrets(join(out, 'secrets.json'))
  for (const file of [
    'server.json',
    'redis.conf',
    'sentinel.conf',
    'users.acl',
    'sentinel-users.acl',
    'tls/server.key',
  ])
    t.equal((await stat(join(out, 'b', file))).mode & 0o777, 0o600, file)
  for (const folder of ['', 'b', 'b/tls']) t.equal((await stat(join(out, folder))).mode & 0o777, 0o700, folder)
  t.match(lines.join('\n'), /On b \(10\.0\.2\.10\): muster redis run --dir .*redis\/b/)
  const everything = `${lines.join('\n')}${(await Promise.all(['users.acl', 'sentinel-users.acl'].map(file => read('b', file)))).join()}`
  for (const password of Object.values(secrets.passwords)) t.notOk(everything.includes(password), 'hashes only')
  for (const host of ['a', 'b', 'c']) {
    for (const file of ['server.json', 'redis.conf', 'tls/ca.crt']) t.notMatch(await read(host, file), secrets.caKey)
    t.match(await read(host, 'sentinel.conf'), 'sentinel monitor muster 10.0.1.10 6379 2\n')
  }
  t.match(await read('b', 'redis.conf'), /bind 10\.0\.2\.10 -127\.0\.0\.1\n(.*\n)*port 0\ntls-port 6379\n/)
  t.match(await readServerConfig(join(out, 'b')), { host: 'b', downAfterMs: 2000, maxMemoryMb: 512 })

  const [, url = ''] = /^MUSTER_REDIS_URL=(.*)$/m.exec(await read('node.env')) ?? []
  t.match(parseRedisUrl(url), {
    ...{ kind: 'sentinel', tls: true, name: 'muster', username: 'muster', password: secrets.passwords.muster },
    sentinels: [{ host: '10.0.1.10', port: 26_379 }, {}, {}],
    sentinelCredentials: { username: 'muster', password: secrets.passwords.muster },
  })
  t.match(await read('node.env'), `MUSTER_REDIS_CA_FILE=${join(out, 'ca.crt')}\nMUSTER_REDIS_TLS_NAME=muster-redis\n`)

  await mkdir(join(out, 'b', 'data'))
  const state = 'sentinel monitor muster 10.0.3.10 6379 2\nsentinel config-epoch muster 7\n'
  await writeFile(join(out, 'b', 'data', 'sentinel.conf'), state)
  await write({ downAfterMs: '3000' })
  t.match(lines.join('\n'), /Kept what its Sentinel knows: the primary is c \(epoch 7\)/)
  t.equal(await read('b', 'data', 'sentinel.conf'), state)
  t.match(await read('b', 'sentinel.conf'), /down-after-milliseconds muster 3000/)
  t.strictSame(await readSecrets(join(out, 'secrets.json')), secrets, 'the same secrets again')

  const elsewhere = join(out, 'other')
  await write({ out: elsewhere, only: 'c', secrets: join(out, 'secrets.json'), tls: false, primary: 'b' })
  t.match(
    await readFile(join(elsewhere, 'c', 'sentinel.conf'), 'utf8'),
    /^port 26379\n(.*\n)*sentinel monitor muster 10\.0\.2\.10/m,
  )
  t.match(await readFile(join(elsewhere, 'node.env'), 'utf8'), /^MUSTER_REDIS_URL=redis\+sentinel:[^\n]*\n$/)
  await t.rejects(stat(join(elsewhere, 'a')))
  await t.rejects(stat(join(elsewhere, 'secrets.json')))
  const faults: [object, RegExp][] = [
    [{ only: 'd' }, /--only d is none of the hosts \(a, b, c\)/],
    [{ primary: 'd' }, /--primary d/],
    [{ port: '70000' }, /--port must be a whole number/],
    [{ sentinelPort: '6379' }, /must differ/],
    [{ name: 'a b' }, /--name takes/],
    [{ secrets: '/nonexistent' }, /secrets in \/nonexistent cannot be read/],
  ]
  for (const [options, message] of faults) await t.rejects(write(options), { message })
  await t.rejects(readServerConfig(out), /server.json cannot be read/)
})

t.test('what Sentinel learnt outlives a new configuration', async t => {
  const group = { hosts, name: 'muster', port: 6379, sentinelPort: 26_379, tls: true, downAfterMs: 3000 }
  const template = 'port 0\nsentinel monitor muster 10.0.1.10 6379 2\nsentinel down-after-milliseconds muster 3000\n'
  t.equal(mergeSentinelConf(template, '', group), template)
  const state = `port 1
sentinel myid abc
sentinel monitor muster 10.0.3.10 6379 2
sentinel down-after-milliseconds muster 2000
sentinel config-epoch muster 4
sentinel leader-epoch muster 5
sentinel known-replica muster 10.0.1.10 6379
sentinel known-replica muster 10.9.9.9 6379
sentinel known-sentinel muster 10.0.2.10 26379 def
sentinel current-epoch 5
`
  const merged = mergeSentinelConf(template, state, group)
  t.equal(
    merged,
    `port 0
sentinel monitor muster 10.0.3.10 6379 2
sentinel down-after-milliseconds muster 3000
sentinel myid abc
sentinel config-epoch muster 4
sentinel leader-epoch muster 5
sentinel known-replica muster 10.0.1.10 6379
sentinel known-sentinel muster 10.0.2.10 26379 def
sentinel current-epoch 5
`,
    'all of it but what is no host any more',
  )
  t.equal(mergeSentinelConf(template, merged, group), merged, 'and again')
  const moved = { ...group, hosts: parseHosts('a=10.1.0.1,b=10.1.0.2,c=10.1.0.3') }
  t.match(mergeSentinelConf(template, state, moved), /monitor muster 10\.0\.1\.10.*\n.*\nsentinel myid abc\n$/)
})

t.test('what a Redis would load', async t => {
  const folder = t.testdir({
    'dump.rdb': 'x'.repeat(1000),
    appendonlydir: { 'appendonly.aof.1.base.rdb': 'x'.repeat(88), 'appendonly.aof.1.incr.aof': 'x'.repeat(1000) },
  })
  const manifest = (...lines: string[]): Promise<void> =>
    writeFile(join(folder, 'appendonlydir', 'appendonly.aof.manifest'), lines.join('\n'))
  t.equal(await holdsNoData(join(folder, 'nonexistent')), true)
  t.equal(await holdsNoData(folder), true, 'neither what a sync left nor what no manifest lists')
  await manifest('file appendonly.aof.1.base.rdb seq 1 type b', '')
  t.equal(await holdsNoData(folder), true, 'a head and nothing else')
  await manifest('file appendonly.aof.1.base.rdb seq 1 type b', 'file appendonly.aof.1.incr.aof seq 1 type i', '')
  t.equal(await holdsNoData(folder), false)
  await manifest('file appendonly.aof.1.incr.aof seq 1 type i startoffset 0', '')
  t.equal(await holdsNoData(folder), false, 'as Redis 8 lists it')
  await manifest('')
  await writeFile(join(folder, 'appendonly.aof'), 'x'.repeat(1000))
  t.equal(await holdsNoData(folder), false, 'the one file of Redis 6')
})

t.test('the status', async t => {
  const sentinel = (host: Host, change: Partial<SentinelInfo> = {}) => ({
    ...{ host: host.name, address: host.address },
    info: {
      ...{ primary: a.address, port: 6379, configEpoch: 1, isFailingOver: false, flags: ['master'], sentinels: [] },
      replicas: [b, c].map(({ address }) => ({ address, port: 6379, isFit: true })),
      ...{ quorumFault: undefined, ...change },
    },
  })
  const primary = readInfo(
    'redis_version:7.0.15\r\nrole:master\r\nmaster_repl_offset:110\r\nloading:0\r\nslave0:ip=10.0.2.10,port=6379,state=online,offset=100,lag=0\r\n' +
      'slave1:ip=10.0.3.10,port=6379,state=online,offset=110,lag=1\r\ndb0:keys=3,expires=0,avg_ttl=0\r\n',
  )
  const started = readInfo('role:slave\r\nslave_repl_offset:1\r\nmaster_repl_offset:900\r\n')
  t.equal(started.offset, 0, 'what Redis 8 reads from its append-only file is no place in the stream')
  const replica = readInfo('role:slave\r\nmaster_host:10.0.1.10\r\nmaster_link_status:up\r\nslave_repl_offset:100\r\n')
  const redis = (host: Host, info: RedisInfo | undefined) => ({ host: host.name, address: host.address, info })
  const redises = [redis(a, primary), redis(b, replica), redis(c, replica)]
  const sentinels = [sentinel(a), sentinel(b), sentinel(c)]
  const status = evaluate(sentinels, redises)
  t.match(status, { primary: 'a', canFailOver: true, faults: [] })
  t.match(status.hosts, [{ redis: 'primary', keyCount: 3 }, { behindBytes: 10 }, { behindBytes: 0, lagMs: 1000 }])

  const evaluated = (t: Test, change: Parameters<typeof evaluate>, canFailOver: boolean, fault: RegExp): void => {
    const { faults, ...rest } = evaluate(...change)
    t.equal(rest.canFailOver, canFailOver, String(fault))
    t.match(faults.join('; '), fault)
  }
  evaluated(
    t,
    [sentinels, [redis(a, primary), redis(b, replica), redis(c, undefined)]],
    true,
    /Redis of c does not answer/,
  )
  evaluated(
    t,
    [[...sentinels.slice(0, 2), { ...sentinel(c), info: undefined }], redises],
    true,
    /Sentinel of c does not/,
  )
  evaluated(t, [sentinels, [redis(a, undefined), ...redises.slice(1)]], false, /a is named, but does not serve/)
  const cut = [b, c].map(host => redis(host, { ...replica, isLinked: false }))
  evaluated(t, [sentinels, [redis(a, primary), ...cut]], false, /b could not take over: it is not in sync/)
  const noQuorum = hosts.map(host => sentinel(host, { quorumFault: 'NOQUORUM' }))
  evaluated(t, [noQuorum, redises], false, /Sentinel of b: NOQUORUM/)
  const split = [sentinel(a), sentinel(b, { primary: b.address }), sentinel(c, { primary: c.address })]
  evaluated(t, [split, redises], false, /no majority of the Sentinels agrees/)
  const unseen = [sentinel(a), sentinel(b, { replicas: [] }), sentinel(c, { replicas: [] })]
  evaluated(t, [unseen, redises], false, /b could not take over: most Sentinels have not seen it in sync yet/)
  const fewUnseen = [sentinel(a), sentinel(b), sentinel(c, { replicas: [] })]
  t.match(evaluate(fewUnseen, redises), { canFailOver: true, faults: [] }, 'one that is late does no harm')
})
