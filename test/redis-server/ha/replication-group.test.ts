import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import t from 'tap'
import { ask } from '../../../src/redis-server/ha/probe.ts'
import { isAlive } from '../../support/is-alive.ts'
import { cli } from '../../support/node-process.ts'
import { holdsAll, makeGroup, roleOf, Writer } from '../../support/redis-group.ts'
import { patienceMs, until } from '../../support/until.ts'

const run = promisify(execFile)

/** @returns what it printed and its exit code */
async function muster(...args: string[]): Promise<{ text: string; code: number }> {
  return await run(process.execPath, [cli, ...args], { timeout: patienceMs }).then(
    ({ stdout }) => ({ text: stdout, code: 0 }),
    (error: { stdout: string; stderr: string; code: number }) => ({
      text: error.stdout + error.stderr,
      code: error.code,
    }),
  )
}

t.test('three hosts, through one trouble after another', async t => {
  const group = await makeGroup(t)
  const statusOf = async () => await muster('redis', 'status', '--dir', join(group.folder, 'b'))

  t.equal((await statusOf()).code, 1, 'while nothing runs, no failover could happen')
  for (const host of group.hosts) host.start()
  const first = await group.untilWhole()
  t.match(group.host('a').log(), /Redis starts as primary/, 'at the very first start the first host is primary')
  const status = await statusOf()
  t.match(status, { code: 0, text: new RegExp(`${first} is primary, and another host could take over now`) })
  t.equal((await muster('redis', 'run', '--dir', join(group.folder, 'a'))).code, 1, 'a host runs once')

  await t.test('nodes may do what they need, and nobody else may do anything', async t => {
    const primary = await group.untilWhole()
    const node = group.target('redis', primary, 'muster')
    const refused = async (...command: string[]): Promise<string> =>
      await ask(node, 5000, client => client.call(command[0] ?? '', ...command.slice(1))).then(
        () => 'done',
        error => (error as Error).message,
      )
    for (const command of ['FLUSHALL', 'KEYS *', 'CONFIG SET appendonly no', 'SHUTDOWN', 'GET other', 'ACL LIST'])
      t.match(await refused(...command.split(' ')), /NOPERM|No permissions/i, command)
    t.match(await refused('PUBLISH', 'other', 'x'), /NOPERM|No permissions/i, 'another channel')
    t.equal(await refused('PUBLISH', '{muster}:notifier', 'x'), 'done')
    t.equal(await refused('CONFIG', 'GET', 'appendonly'), 'done')
    t.equal(await refused('ROLE'), 'done')

    const { username: _user, password: _password, ...nobody } = node
    await t.rejects(
      ask(nobody, 5000, client => client.ping()),
      /NOAUTH/,
    )
    await t.rejects(ask({ ...node, password: 'x'.repeat(32) }, 5000, client => client.ping()))
    await t.rejects(
      ask({ ...node, tls: {} }, 5000, client => client.ping()),
      /certificate/,
    )
    const { tls: _tls, ...plain } = node
    await t.rejects(
      ask(plain, 5000, client => client.ping()),
      'not without encryption',
    )

    const sentinel = group.target('sentinel', 'b', 'muster')
    const asked = (...args: string[]): Promise<unknown> =>
      ask(sentinel, 5000, client => client.call('SENTINEL', ...args))
    t.strictSame(await asked('GET-MASTER-ADDR-BY-NAME', 'muster'), [
      group.host(primary).address,
      String(group.config.port),
    ])
    await t.resolves(ask(sentinel, 5000, client => client.subscribe('+switch-master')))
    await t.rejects(asked('FAILOVER', 'muster'), /permission/i)
    await t.rejects(asked('SET', 'muster', 'quorum', '1'), /permission/i)
    await t.rejects(
      ask(sentinel, 5000, client => client.publish('__sentinel__:hello', 'x')),
      /permission/i,
    )
  })

  await t.test('BullMQ works as the user of the nodes, through Sentinel', async t => {
    const tls = { ca: group.secrets.caCertificate, servername: 'muster-redis' }
    const access = { username: 'muster', password: group.secrets.passwords.muster }
    const connection = new Redis({
      ...{ name: 'muster', tls, sentinelTLS: tls, enableTLSForSentinelMode: true, maxRetriesPerRequest: null },
      ...{ sentinelUsername: access.username, sentinelPassword: access.password, ...access },
      sentinels: group.hosts.map(({ address: host }) => ({ host, port: group.config.sentinelPort })),
    })
    const options = { connection, prefix: '{muster:q}' }
    const queue = new Queue('q', options)
    const worker = new Worker('q', async job => job.data.n * 2, options)
    const finished = new Promise(resolve => worker.on('completed', (_job, value) => resolve(value)))
    await queue.add('x', { n: 21 }, { delay: 10, priority: 2 })
    t.equal(await finished, 42)
    await worker.close()
    await queue.close()
    connection.disconnect()
  })

  await t.test('the Redis of the primary is killed: another takes over, and it comes back as replica', async t => {
    const writer = new Writer(group)
    await until(() => writer.acknowledged.length > 50)
    const before = await group.untilWhole()
    const pid = await group.host(before).pidOf('redis')
    const killedMs = Date.now()
    process.kill(pid, 'SIGKILL')
    const primary = await group.untilPrimaryIsNot(before)
    const count = writer.acknowledged.length
    await until(() => writer.acknowledged.length > count)
    t.comment(`accepting again ${Date.now() - killedMs} ms after the primary's end`)
    await group.untilWhole()
    t.equal(roleOf(await group.status(), before), 'replica', `${primary} is primary`)
    t.match(group.host(before).log(), /a failover to it comes/, 'it waited for that')
    await holdsAll(t, group, await writer.stop(), 'killed Redis')
  })

  await t.test('a host that was away does not trust what its own Sentinel remembers', async t => {
    const stale = await group.untilWhole()
    await group.host(stale).killAll()
    const primary = await group.untilPrimaryIsNot(stale)
    const [third] = group.others(stale).filter(({ name }) => name !== primary)
    // Of the two that are left, one remembers itself, the other knows better.
    await third?.stop()
    group.host(stale).start()
    await until(async () => roleOf(await group.status(), stale) === 'replica')
    t.notMatch(group.host(stale).log().split('starting the Redis').at(-1) ?? '', /starts as primary/)
    third?.start()
    t.equal(await group.untilWhole(), primary)
  })

  await t.test('a planned stop of the primary moves the role without losing what was acknowledged', async t => {
    const writer = new Writer(group)
    const primary = await group.untilWhole()
    await until(() => writer.acknowledged.length > 100)
    const pids = [await group.host(primary).pidOf('redis'), await group.host(primary).pidOf('sentinel')]
    t.equal(await group.host(primary).stop(), 0)
    t.match(group.host(primary).log(), /another host is primary now/)
    t.notOk(pids.some(isAlive), 'nothing of it runs any more')
    const next = await group.untilPrimaryIsNot(primary)
    const before = writer.acknowledged.length
    await until(() => writer.acknowledged.length > before)
    group.host(primary).start()
    await holdsAll(t, group, await writer.stop(), `planned stop of ${primary}, then ${next}`)
  })

  await t.test('muster redis failover does the same while all go on running', async t => {
    const writer = new Writer(group)
    const primary = await group.untilWhole()
    await until(() => writer.acknowledged.length > 100)
    const { code, text } = await muster('redis', 'failover', '--dir', join(group.folder, 'c'))
    t.equal(code, 0, text)
    const next = await group.untilPrimaryIsNot(primary)
    const before = writer.acknowledged.length
    await until(() => writer.acknowledged.length > before)
    await holdsAll(t, group, await writer.stop(), `failover from ${primary} to ${next}`)
  })
})
