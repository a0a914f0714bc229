/** What a Redis server wrote into its append-only file, it reads again under the users of `muster redis init`. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import t from 'tap'
import { redisUsers } from '../../../src/redis-server/ha/config-files.ts'
import { until } from '../../support/until.ts'

/** With `everysec` Redis keeps a write in memory while the last one is being synced: a SIGKILL just then loses it. */
const atOnce = ['--appendfsync', 'always']
const passwords = { muster: 'm', operator: 'o', replica: 'r', sentinel: 's', peer: 'p' }

t.test('scripts and transactions survive a SIGKILL; nobody gets in as default', async t => {
  const folder = await mkdtemp(join(tmpdir(), 'muster-acl-'))
  const path = join(folder, 'redis.sock')
  const aclFile = join(folder, 'users.acl')
  await writeFile(aclFile, redisUsers(passwords))
  let kill = async (): Promise<void> => {}
  const start = async (): Promise<Redis> => {
    const args = ['--port', '0', '--unixsocket', path, '--dir', folder, '--save', '', '--appendonly', 'yes', ...atOnce]
    const child = spawn('redis-server', [...args, '--aclfile', aclFile], { stdio: 'ignore' })
    const redis = new Redis({ path, username: 'muster', password: 'm', lazyConnect: true, retryStrategy: () => 50 })
    redis.on('error', () => undefined)
    kill = async () => {
      redis.disconnect()
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    await redis.connect().catch(() => undefined)
    await until(() => redis.status === 'ready')
    return redis
  }
  t.teardown(async () => {
    await kill()
    await rm(folder, { recursive: true, force: true })
  })
  const before = await start()
  await before.eval("redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 2)", 2, '{muster}:a', '{muster}:b')
  await before.multi().set('{muster}:c', 3).set('{muster}:d', 4).exec()
  await kill()

  const after = await start()
  t.same(await after.mget('{muster}:a', '{muster}:b', '{muster}:c', '{muster}:d'), ['1', '2', '3', '4'])

  // Protocol 3 begins with a HELLO, which a stranger is refused: then there would be no connection to ask on.
  const stranger = new Redis({
    ...{ path, protocol: 2, lazyConnect: true },
    ...{ retryStrategy: () => null, enableReadyCheck: false },
  })
  stranger.on('error', () => undefined)
  await stranger.connect()
  t.teardown(() => stranger.disconnect())
  await t.rejects(stranger.get('{muster}:a'), /NOAUTH/)
  for (const credentials of [[''], ['default', '']])
    await t.rejects(stranger.call('AUTH', ...credentials), /WRONGPASS/, 'off is off, whatever its rights')
})
