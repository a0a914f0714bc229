import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import {
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { StartupError } from '../../src/errors.ts'
import { processIdentity } from '../../src/process-identity.ts'
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect/connection.ts'
import { lockDataDir } from '../../src/redis-server/data-dir-lock.ts'
import { EmbeddedRedis } from '../../src/redis-server/embedded.ts'
import { until } from '../support/until.ts'

const log = { info: () => undefined, warn: () => undefined, error: () => undefined } as never

/** A short path, which the folders of tap are not. */
async function makeDataDir(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-e-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

async function start(
  t: Test,
  dataDir: string,
): Promise<{ redis: EmbeddedRedis; client: RedisClient; socketPath: string }> {
  const redis = new EmbeddedRedis({ dataDir, log })
  t.teardown(() => redis.stop())
  const { socketPath } = await redis.start()
  const client = await connectRedis({ socketPath, purpose: 'commands', log })
  t.teardown(() => closeRedis(client))
  return { redis, client, socketPath }
}

async function stop({ redis, client }: { redis: EmbeddedRedis; client: RedisClient }): Promise<void> {
  await closeRedis(client)
  await redis.stop()
}

const lives = async (pid: number): Promise<boolean> => processIdentity(pid) !== undefined

const node = `
  const { EmbeddedRedis } = await import(process.argv[1])
  const quiet = { info() {}, warn() {}, error() {} }
  const redis = new EmbeddedRedis({ dataDir: process.argv[2], log: quiet })
  const { socketPath } = await redis.start().catch(error => { process.stdout.write(error.name); process.exit(1) })
  process.stdout.write(JSON.stringify({ socketPath, pid: redis.pid }))
  setInterval(() => {}, 1000)
`

/** A node in a process of its own; \`said\` is its first words. */
async function spawnNode(
  t: Test,
  dataDir: string,
  path = process.env.PATH,
): Promise<{ child: ChildProcess; said: string }> {
  const built = new URL('../../dist/redis-server/embedded.js', import.meta.url).href
  const child = spawn(process.execPath, ['--input-type=module', '-e', node, built, dataDir], {
    env: { PATH: path },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const [said] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => ['nothing'])])
  return { child, said: String(said) }
}

async function withPath<T>(path: string, action: () => Promise<T>): Promise<T> {
  const before = process.env.PATH
  process.env.PATH = path
  try {
    return await action()
  } finally {
    process.env.PATH = before
  }
}

t.test('starts safe and private, stops without a trace, and finds its data again', async t => {
  const dataDir = await makeDataDir(t)
  const first = await start(t, dataDir)
  const config = async (name: string): Promise<string | undefined> =>
    ((await first.client.config('GET', name)) as string[])[1]
  t.equal(await config('appendonly'), 'yes')
  t.equal(await config('appendfsync'), 'always')
  t.equal(await config('maxmemory-policy'), 'noeviction')
  t.equal(await config('save'), '')
  t.equal(await config('port'), '0')
  t.equal(await config('hash-max-listpack-value'), '1024')
  t.ok(Number(await config('maxmemory')) > 1e7)
  t.equal((await stat(first.socketPath)).mode & 0o777, 0o700)
  t.equal((await stat(dirname(first.socketPath))).mode & 0o777, 0o700)
  await first.client.set('kept', 'yes')
  const pid = first.redis.pid ?? -1
  t.ok(await lives(pid))
  await stop(first)
  t.notOk(await lives(pid))
  t.notOk(existsSync(first.socketPath))
  t.notOk(existsSync(join(dataDir, 'node.lock')))
  await first.redis.stop()
  t.pass('stopping twice is fine')

  const logFile = join(dataDir, 'redis', 'redis.log')
  await appendFile(logFile, Buffer.alloc(6_000_000, 'x'))
  const second = await start(t, dataDir)
  t.equal(await second.client.get('kept'), 'yes')
  t.ok((await stat(logFile)).size < 1_000_000, 'a log that grew large is begun anew')
  await stop(second)
})

t.test('a Redis that is killed comes back by itself with all that it had acknowledged, again and again', async t => {
  const dataDir = await makeDataDir(t)
  const { redis, client } = await start(t, dataDir)
  let kept = 0
  for (let round = 0; round < 4; round++) {
    const before = redis.pid ?? -1
    await client.set(`k${kept++}`, 'v')
    process.kill(before, 'SIGKILL')
    await until(() => redis.pid !== undefined && redis.pid !== before)
    await until(() =>
      client.ping().then(
        () => true,
        () => false,
      ),
    )
    t.equal(await client.dbsize(), kept, `round ${round}`)
  }
})

t.test('stopping while it starts, or while it is to be started again, leaves nothing', async t => {
  const dataDir = await makeDataDir(t)
  for (const waitMs of [0, 5, 15, 30]) {
    const redis = new EmbeddedRedis({ dataDir, log })
    const started = redis.start().catch((error: unknown) => error)
    // pause: how far its start has come
    await delay(waitMs)
    await redis.stop()
    await started
    const pid = Number(await readFile(join(dataDir, 'redis', 'redis.pid'), 'latin1').catch(() => '-1'))
    t.notOk(await lives(pid))
    t.notOk(existsSync(join(dataDir, 'node.lock')))
  }
  const { redis } = await start(t, dataDir)
  const pid = redis.pid ?? -1
  process.kill(pid, 'SIGKILL')
  await until(async () => !(await lives(pid)))
  await redis.stop()
  t.equal(redis.pid, undefined)
})

t.test('a second node on the same data directory is refused, and does not disturb the first', async t => {
  const dataDir = await makeDataDir(t)
  const first = await start(t, dataDir)
  const second = new EmbeddedRedis({ dataDir, log })
  await t.rejects(second.start(), {
    name: 'StartupError',
    message: /Another node \(process \d+\) already uses.*MUSTER_DATA_DIR/s,
  })
  const { said } = await spawnNode(t, dataDir)
  t.equal(said, 'StartupError', 'nor from another process')
  t.equal(await first.client.ping(), 'PONG')
  await stop(first)
  const third = await start(t, dataDir)
  t.equal(await third.client.ping(), 'PONG', 'free again')
})

t.test('of many that find a dead lock exactly one gets it', async t => {
  const dataDir = await makeDataDir(t)
  const file = join(dataDir, 'node.lock')
  const space = async (): Promise<string> => {
    const lock = await lockDataDir(dataDir)
    const held = JSON.parse(await readFile(file, 'utf8')) as { space: string }
    await lock.release()
    return held.space
  }
  const here = await space()
  const dead = [
    JSON.stringify({ pid: process.pid, start: 'another process with this number', space: here, token: 'x' }),
    JSON.stringify({ pid: process.pid, start: '1', space: 'another machine that is long gone', token: 'x' }),
    '',
  ]
  for (const content of dead) {
    await writeFile(file, content)
    await utimes(file, 1, 1)
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => lockDataDir(dataDir)))
    const winners = outcomes.filter(outcome => outcome.status === 'fulfilled')
    t.equal(winners.length, 1, content)
    for (const outcome of outcomes) if (outcome.status === 'rejected') t.type(outcome.reason, StartupError)
    await winners[0]?.value.release()
    t.same(await readdir(dataDir), [], 'and nothing is left when it goes')
  }
})

t.test('a holder on another machine is judged by whether it renews the lock', async t => {
  const foreign = JSON.stringify({ pid: 1, start: '1', space: 'another machine', token: 'x' })
  const [living, dead] = [await makeDataDir(t), await makeDataDir(t)]
  for (const dataDir of [living, dead]) await writeFile(join(dataDir, 'node.lock'), foreign)
  const renewal = setInterval(() => void utimes(join(living, 'node.lock'), new Date(), new Date()), 200)
  t.teardown(() => clearInterval(renewal))
  const [refused, taken] = await Promise.allSettled([lockDataDir(living), lockDataDir(dead)])
  t.match(refused, { status: 'rejected', reason: StartupError })
  t.equal(taken.status, 'fulfilled')
  if (taken.status !== 'fulfilled') return
  const lockFile = join(dead, 'node.lock')
  await utimes(lockFile, 1, 1)
  await until(async () => (await stat(lockFile)).mtimeMs > 1000)
  await taken.value.release()
  await writeFile(lockFile, 'of somebody else')
  await taken.value.release()
  t.ok(existsSync(lockFile), 'a lock that is no longer ours is left alone')
})

t.test(
  'a node that is killed takes its Redis along, and the next one starts',
  { skip: process.platform !== 'linux' && 'only Linux ties a child to its parent' },
  async t => {
    const dataDir = await makeDataDir(t)
    const { child, said } = await spawnNode(t, dataDir)
    const { socketPath, pid } = JSON.parse(said) as { socketPath: string; pid: number }
    const client = await connectRedis({ socketPath, purpose: 'commands', log })
    await client.set('kept', 'yes')
    await closeRedis(client)
    child.kill('SIGKILL')
    await until(async () => !(await lives(pid)))
    const next = await start(t, dataDir)
    t.equal(await next.client.get('kept'), 'yes')
  },
)

t.test('a Redis that was left behind is ended before the next one starts, even when it hangs', async t => {
  const dataDir = await makeDataDir(t)
  const programs = await makeDataDir(t)
  const { stdout } = spawn('sh', ['-c', 'command -v redis-server'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [found] = await once(stdout, 'data')
  await symlink(String(found).trim(), join(programs, 'redis-server'))
  for (const hangs of [false, true]) {
    const { child, said } = await spawnNode(t, dataDir, programs) // no setpriv on this PATH
    const { socketPath, pid } = JSON.parse(said) as { socketPath: string; pid: number }
    t.teardown(() => lives(pid).then(is => is && process.kill(pid, 'SIGKILL')))
    const client = await connectRedis({ socketPath, purpose: 'commands', log })
    await client.incr('kept')
    await closeRedis(client)
    child.kill('SIGKILL')
    await once(child, 'exit')
    t.ok(await lives(pid), 'Redis outlives its node')
    if (hangs) process.kill(pid, 'SIGSTOP')
    const next = await start(t, dataDir)
    t.notOk(await lives(pid))
    t.not(next.redis.pid, pid)
    t.equal(await next.client.get('kept'), hangs ? '2' : '1')
    await stop(next)
  }
})

t.test('a data directory with a long path gets its socket in a short, private one', async t => {
  const dataDir = join(await makeDataDir(t), 'x'.repeat(60), 'with space "and" quotes'.padEnd(80, 'y'))
  const first = await start(t, dataDir)
  t.ok(Buffer.byteLength(first.socketPath) < 104, first.socketPath)
  const folder = dirname(first.socketPath)
  t.equal((await stat(folder)).mode & 0o777, 0o700)
  await first.client.set('kept', 'yes')
  await stop(first)
  t.notOk(existsSync(folder))
  const second = await start(t, dataDir)
  t.equal(await second.client.get('kept'), 'yes')
  await stop(second)
  await mkdir(folder)
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o777)
  await t.rejects(new EmbeddedRedis({ dataDir, log }).start(), {
    name: 'StartupError',
    message: /not a private folder/,
  })
})

t.test('an append-only file that was cut short loads; one that is damaged is reported with the log', async t => {
  const dataDir = await makeDataDir(t)
  const first = await start(t, dataDir)
  await first.client.set('kept', 'yes')
  await stop(first)
  const folder = join(dataDir, 'redis', 'appendonlydir')
  const name = (await readdir(folder)).find(file => file.endsWith('.incr.aof')) ?? ''
  await appendFile(join(folder, name), '*3\r\n$3\r\nSET\r\n$4\r\nlo')
  const second = await start(t, dataDir)
  t.equal(await second.client.get('kept'), 'yes')
  await stop(second)

  await writeFile(join(folder, name), 'this is no command\r\n')
  const damaged = new EmbeddedRedis({ dataDir, log })
  await t.rejects(damaged.start(), {
    name: 'StartupError',
    message: /ended as soon as it was started.*redis\.log.*Bad file format/s,
  })
  t.equal(damaged.pid, undefined)
  t.notOk(existsSync(join(dataDir, 'node.lock')), 'the lock is let go')
})

t.test('without redis-server, or with an old one, it says what to do', async t => {
  const dataDir = await makeDataDir(t)
  const programs = await makeDataDir(t)
  await withPath(programs, () =>
    t.rejects(new EmbeddedRedis({ dataDir, log }).start(), {
      name: 'StartupError',
      message: /apt install redis-server.*dnf install.*brew install redis.*MUSTER_REDIS_URL/s,
    }),
  )
  await writeFile(
    join(programs, 'redis-server'),
    '#!/bin/sh\necho "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc"\n',
    { mode: 0o755 },
  )
  await withPath(`${programs}:/bin:/usr/bin`, () =>
    t.rejects(new EmbeddedRedis({ dataDir, log }).start(), { name: 'StartupError', message: /6\.0 is too old.*6\.2/s }),
  )
  await writeFile(join(dataDir, 'file'), '')
  await t.rejects(new EmbeddedRedis({ dataDir: join(dataDir, 'file'), log }).start(), {
    name: 'StartupError',
    message: /cannot be written/,
  })
})
