import { X509Certificate } from 'node:crypto'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { namesOf } from '../../../src/redis-server/ha/certificates.ts'
import { runRedisInit, runRedisSecrets } from '../../../src/redis-server/ha/redis-command.ts'
import { readServerConfig } from '../../../src/redis-server/ha/replication-group.ts'
import { readSecrets } from '../../../src/redis-server/ha/secrets.ts'
import { parseRedisUrl } from '../../../src/settings/redis-url.ts'

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
