/** The providers: the contract on each, and what is special about processes on this machine. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createLocalProvider, type LocalProviderOptions } from '../../src/fleet/providers/local/local-provider.ts'
import { workerEnvironment } from '../../src/fleet/providers/worker-environment.ts'
import { processIdentity } from '../../src/process-identity.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { testProviderContract } from '../contracts/provider-contract.ts'
import { eventually } from '../support/fleet-parts.ts'
import { MemoryProvider } from '../support/memory-provider.ts'

const log = pino({ level: 'silent' })

/** A worker that does nothing but stay, die or be deaf; it leaves a file when it is up, with what it was given. */
const fakeWorker = `
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
const { FAKE_MODE, FAKE_DIR, MUSTER_INSTANCE_ID } = process.env
if (FAKE_MODE === 'die') { console.log('cannot start'); process.exit(7) }
process.on('SIGTERM', () => { if (FAKE_MODE !== 'deaf') process.exit(0) })
const slot = FAKE_MODE === 'deaf' ? spawn('sleep', ['600'], { stdio: 'ignore' }).pid : 0
setInterval(() => {}, 1000)
console.log('up')
writeFileSync(FAKE_DIR + '/' + MUSTER_INSTANCE_ID, JSON.stringify({ slot, args: process.argv.slice(2), env: process.env }))
`

async function setUp(t: Test, mode: 'stay' | 'die' | 'deaf' = 'stay') {
  const dataDir = await mkdtemp(join(tmpdir(), 'muster-local-'))
  const script = join(dataDir, 'fake-worker.mjs')
  await writeFile(script, fakeWorker)
  const options: LocalProviderOptions = {
    dataDir,
    workerCommand: [process.execPath, script, 'worker'],
    environment: { PATH: process.env.PATH, FAKE_MODE: mode, FAKE_DIR: dataDir },
    terminateGraceMs: 200,
    closeGraceMs: 200,
    log,
  }
  const open = (more: Partial<LocalProviderOptions> = {}) => {
    const provider = createLocalProvider({ ...options, ...more })
    t.teardown(() => provider.close({ stopInstances: true }))
    return provider
  }
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  /** What the worker of an instance was given, once it is up. */
  const up = async (id: string): Promise<{ slot: number; args: string[]; env: Record<string, string> }> => {
    const text = await eventually(() => readFile(join(dataDir, id), 'utf8').catch(() => ''))
    return JSON.parse(text) as { slot: number; args: string[]; env: Record<string, string> }
  }
  const record = async (id: string) =>
    JSON.parse(await readFile(join(dataDir, 'instances', `${id}.json`), 'utf8')) as {
      pid: number
      endedAt?: number
      endedWith?: number | string
    }
  return { dataDir, options, open, up, record }
}

const request = (decisionId: string, count = 1) => ({ pool: 'default', count, decisionId, slots: 3 })
const gone = (pid: number): boolean => processIdentity(pid) === undefined

testProviderContract(t, 'memory', async () => {
  const provider = new MemoryProvider()
  return { provider, crash: async id => provider.end(id) }
})

testProviderContract(t, 'local', async t => {
  const { open, record } = await setUp(t)
  const provider = open()
  return {
    provider,
    crash: async id => {
      const { pid } = await record(id)
      process.kill(pid, 'SIGKILL')
      await eventually(() => gone(pid))
    },
  }
})

t.test('a worker is started with its queue, and an environment of its own', async t => {
  const { open, up, dataDir, options } = await setUp(t)
  const outer = {
    PATH: process.env.PATH,
    AWS_REGION: 'eu-central-1',
    AWS_SECRET_ACCESS_KEY: 'of the node alone',
    NPM_TOKEN: 'of the node alone',
    MUSTER_PASS_ENV: 'AWS_REGION',
    PORT: '80',
    MUSTER_REDIS_URL: 'redis://secret',
    MUSTER_LOG_LEVEL: 'debug',
    MUSTER_WORKER_TOKEN: 'of the node alone',
    MUSTER_OPERATOR_KEY: 'of the node alone',
  }
  const settings = readSettings(outer)
  const provider = open({
    environment: { ...workerEnvironment(settings, outer, 'http://127.0.0.1:5123'), ...options.environment },
    tokenFor: (instanceId, pool) => `token of ${instanceId} for ${pool}`,
  })
  const [instance] = await provider.launch({ ...request('d1'), pool: 'images' })
  const { args, env } = await up(instance?.id ?? '')
  t.same(args, ['worker', '--queue', 'images'])
  t.match(env, {
    MUSTER_INSTANCE_ID: instance?.id,
    MUSTER_WORKER_SLOTS: '3',
    MUSTER_NODE_URLS: 'http://127.0.0.1:5123',
    MUSTER_LOG_LEVEL: 'debug',
    MUSTER_WORKER_TOKEN: `token of ${instance?.id} for images`,
    AWS_REGION: 'eu-central-1',
  })
  t.notOk('MUSTER_REDIS_URL' in env, 'Redis is no business of a worker')
  t.notOk('PORT' in env)
  t.notMatch(JSON.stringify(env), 'of the node alone')
  t.doesNotThrow(() => readSettings(env), 'the worker can read all that it is given')
  t.equal(await readFile(join(dataDir, 'instances', `${instance?.id}.log`), 'utf8'), 'up\n')
})

t.test('a worker that does not listen is killed after the grace, with all that it started', async t => {
  const { open, up, record } = await setUp(t, 'deaf')
  // Time to look at it before it is killed.
  const provider = open({ terminateGraceMs: 3000 })
  const [instance] = await provider.launch(request('d1'))
  const id = instance?.id ?? ''
  const { slot } = await up(id)
  const { pid } = await record(id)
  await provider.terminate([id])
  t.equal((await provider.list())[0]?.state, 'terminating')
  t.notOk(gone(pid))
  await eventually(async () => (await provider.list()).length === 0)
  await eventually(() => gone(pid) && gone(slot))
  t.equal((await record(id)).endedWith, 'SIGKILL')

  const [other] = await provider.launch(request('d2'))
  const started = await up(other?.id ?? '')
  process.kill((await record(other?.id ?? '')).pid, 'SIGKILL')
  await eventually(() => gone(started.slot))
  t.pass('what a crashed worker leaves behind goes with it')
})

t.test('a worker that cannot start is no instance', async t => {
  const { open, record, dataDir } = await setUp(t, 'die')
  const provider = open()
  const [instance] = await provider.launch(request('d1'))
  await eventually(async () => (await provider.list()).length === 0)
  t.equal((await record(instance?.id ?? '')).endedWith, 7)
  t.equal(await readFile(join(dataDir, 'instances', `${instance?.id}.log`), 'utf8'), 'cannot start\n')
  t.equal(await provider.explainBoot(instance?.id ?? ''), 'cannot start\n')
  const hopeless = open({ workerCommand: [join(dataDir, 'no-such-program')] })
  await t.rejects(hopeless.launch(request('d2')), {
    name: 'LaunchError',
    message: /^No worker process could be started for queue default: ENOENT/,
  })
})

t.test('records and logs of ended instances are kept for the newest twenty', async t => {
  const { open, dataDir } = await setUp(t, 'die')
  const provider = open()
  for (let n = 0; n < 6; n += 1) await provider.launch(request(`d${n}`, 4))
  await eventually(async () => (await provider.list()).length === 0)
  t.equal(readdirSync(join(dataDir, 'instances')).filter(name => name.endsWith('.json')).length, 20)
  t.equal(readdirSync(join(dataDir, 'instances')).filter(name => name.endsWith('.log')).length, 20)
})

t.test('a node that was killed finds its workers again', async t => {
  const { options, open, up, record } = await setUp(t)
  const node = await startNode(t, options)
  const ids = [...node.ids]
  for (const id of ids) await up(id)
  const pids = await Promise.all(ids.map(async id => (await record(id)).pid))
  node.child.kill('SIGKILL')
  await once(node.child, 'exit')
  t.ok(
    pids.every(pid => !gone(pid)),
    'the workers outlive the node',
  )

  const provider = open()
  const adopted = await provider.list()
  t.same(adopted.map(({ id }) => id).sort(), ids.sort())
  for (const instance of adopted) t.match(instance, { state: 'running', slots: 3, pool: 'default' })
  t.equal((await provider.launch(request('from-the-node', 2))).length, 2, 'a decision of before launches nothing again')
  t.equal((await provider.list()).length, 2)
  const [first = 0, second = 0] = pids
  process.kill(first, 'SIGKILL')
  await eventually(() => gone(first))
  t.equal((await provider.list()).length, 1, 'an adopted one that ends is gone at once')
  await provider.close({ stopInstances: true })
  t.ok(gone(second), 'nothing is left')
})

t.test('a recycled pid is nobody of ours', async t => {
  const { open, dataDir } = await setUp(t)
  open()
  const stranger = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' })
  t.teardown(() => stranger.kill('SIGKILL'))
  const record = {
    id: 'local-x-1',
    pool: 'default',
    slots: 1,
    decisionId: 'd',
    launchedAt: 1,
    pid: stranger.pid,
    identity: 'an earlier process',
  }
  await writeFile(join(dataDir, 'instances', 'local-x-1.json'), JSON.stringify(record))
  await writeFile(join(dataDir, 'instances', 'broken.json'), '{')
  const provider = open()
  t.same(await provider.list(), [])
  await provider.terminate(['local-x-1'], { force: true })
  await provider.close({ stopInstances: true })
  t.notOk(gone(stranger.pid ?? 0), 'the stranger lives')
})

/** A process of its own that launches two workers and then waits to be killed. */
async function startNode(t: Test, options: LocalProviderOptions): Promise<{ child: ChildProcess; ids: string[] }> {
  const built = new URL('../../dist/fleet/providers/local/local-provider.js', pathToFileURL(import.meta.filename))
  if (!existsSync(built)) throw new Error('dist/ is missing: npm run build')
  const code = `
    import { createLocalProvider } from ${JSON.stringify(built.href)}
    const log = { info() {}, warn() {}, error() {}, debug() {} }
    const provider = createLocalProvider({ ...${JSON.stringify({ ...options, log: undefined })}, log })
    const launched = await provider.launch({ pool: 'default', count: 2, decisionId: 'from-the-node', slots: 3 })
    process.stdout.write(launched.map(({ id }) => id).join(' '))
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH },
  })
  t.teardown(() => child.kill('SIGKILL'))
  const [output] = (await once(child.stdout, 'data')) as [Buffer]
  return { child, ids: output.toString().split(' ') }
}
