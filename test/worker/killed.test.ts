/** What a worker leaves behind that is killed: what can end by itself does, and the next one removes the rest. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { isOwnerGone, ownerName } from '../../src/marked-processes.ts'
import { removeLeftovers } from '../../src/worker/agent/remove-leftovers.ts'
import { FakeNode } from '../support/fake-node.ts'
import { isAlive } from '../support/is-alive.ts'
import { until } from '../support/until.ts'

if (process.platform !== 'linux') {
  t.pass('needs /proc')
  process.exit()
}

const workerProcess = fileURLToPath(new URL('../support/worker-process.mjs', import.meta.url))

/** Each tells who it is and what it started, and stays. */
const handlers = `import { defineHandler } from 'muster'
import { spawn } from 'node:child_process'
import { renameSync, writeFileSync } from 'node:fs'
const tell = (file, children) => {
  writeFileSync(file + '.new', JSON.stringify([process.pid, ...children]))
  renameSync(file + '.new', file)
}
const escape = () => Array.from({ length: 5 }, () => {
  const child = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' })
  child.unref()
  return child.pid
})
export const stay = defineHandler({ type: 'stay', handle: ({ file }) => {
  tell(file, escape())
  return new Promise(() => undefined)
} })
export const stop = defineHandler({ type: 'stop', handle: ({ file }) => {
  tell(file, escape())
  process.kill(process.pid, 'SIGSTOP')
} })`

async function setUp(t: Test) {
  const folder = t.testdir({ 'handlers.mjs': handlers, tmp: {} })
  const temporary = join(folder, 'tmp')
  const node = new FakeNode()
  await node.open()
  t.teardown(async () => await node.close())
  const start = async (more: Record<string, string> = {}): Promise<ChildProcess> => {
    const before = node.claims.length
    const outer = Object.entries(process.env).filter(([name]) => !name.startsWith('MUSTER_') && name !== 'NODE_OPTIONS')
    const env = {
      ...Object.fromEntries(outer),
      TMPDIR: temporary,
      MUSTER_NODE_URLS: node.url,
      MUSTER_HANDLERS: join(folder, 'handlers.mjs'),
      MUSTER_CONFIG_FILE: '/nonexistent',
      MUSTER_WORKER_SLOTS: '1',
      ...more,
    }
    const child = spawn(process.execPath, [workerProcess], { env, stdio: ['ignore', 'ignore', 'inherit'] })
    t.teardown(() => child.kill('SIGKILL'))
    await node.when(() => node.claims.length > before, 'a claim')
    return child
  }
  /** Runs a job that stays. @returns its slot, and what that started */
  const occupy = async (type: string): Promise<number[]> => {
    const file = join(folder, `pids of ${type}`)
    node.add({ type, payload: { json: { file } } })
    await until(() => existsSync(file))
    return JSON.parse(readFileSync(file, 'utf8')) as number[]
  }
  const kill = async (child: ChildProcess): Promise<void> => {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  const left = (prefix: string): string[] => readdirSync(temporary).filter(name => name.startsWith(prefix))
  return { start, occupy, kill, left, temporary }
}

t.test('its slots end, and what they started in sessions of their own', async t => {
  const { start, occupy, kill, left } = await setUp(t)
  const child = await start({ MUSTER_ISOLATION: 'process' })
  const pids = await occupy('stay')
  t.equal(pids.filter(isAlive).length, 6)
  t.equal(left('muster-attempt-').length, 1)
  await kill(child)
  await until(() => !pids.some(isAlive))
  await until(() => left('muster-attempt-').length === 0)
})

t.test('a slot that was stopped ends when the next worker starts', async t => {
  const { start, occupy, kill } = await setUp(t)
  const child = await start()
  const pids = await occupy('stop')
  await kill(child)
  const other = await start()
  await until(() => !pids.some(isAlive))
  t.ok(isAlive(other.pid as number))
})

t.test('what was started ends also when the slot was killed first', async t => {
  const { start, occupy, kill } = await setUp(t)
  const child = await start()
  const [slot, ...children] = (await occupy('stop')) as [number, ...number[]]
  child.kill('SIGSTOP')
  process.kill(slot, 'SIGKILL')
  await kill(child)
  t.equal(children.filter(isAlive).length, 5)
  await start()
  await until(() => !children.some(isAlive))
})

t.test('its handlers are removed by the next worker, those of living ones stay', async t => {
  const { start, kill, left, temporary } = await setUp(t)
  const living = await start()
  const [kept] = left('muster-handlers-')
  const killed = await start()
  t.equal(left('muster-handlers-').length, 2)
  await kill(killed)
  mkdirSync(join(temporary, 'muster-handlers-ofOld1'))
  const next = await start()
  t.equal(left('muster-handlers-').length, 3)
  t.ok(left('muster-handlers-').includes(kept ?? ''))
  t.notOk(left('muster-handlers-').some(name => name.includes(`-${killed.pid}-`)))
  for (const child of [living, next]) {
    child.kill('SIGTERM')
    t.same(await once(child, 'exit'), [0, null])
  }
  t.same(left('muster-handlers-'), ['muster-handlers-ofOld1'], 'whose owner is not known')
})

t.test('a worker that is told to go while it looks at its handlers removes them', async t => {
  const folder = t.testdir({ 'handlers.mjs': 'setInterval(() => {}, 1000); await new Promise(() => {})', tmp: {} })
  const temporary = join(folder, 'tmp')
  const env = {
    ...process.env,
    TMPDIR: temporary,
    MUSTER_HANDLERS: join(folder, 'handlers.mjs'),
    MUSTER_CONFIG_FILE: '/nonexistent',
  }
  const child = spawn(process.execPath, [workerProcess], { env, stdio: 'ignore' })
  t.teardown(() => child.kill('SIGKILL'))
  await until(() => readdirSync(temporary).some(name => name.startsWith('muster-handlers-')))
  child.kill('SIGTERM')
  t.same(await once(child, 'exit'), [143, null])
  t.same(readdirSync(temporary), [])
})

t.test('a process that exits removes its handlers, wherever it is', async t => {
  const folder = t.testdir({})
  const file = new URL('../../dist/worker/slots/load-bundle.js', import.meta.url).href
  const script = `import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { writeBundle } from '${file}'
await writeBundle({ code: Buffer.from(''), digest: 'abc' })
process.exit(readdirSync(tmpdir()).length === 1 ? 7 : 8)`
  const env = { ...process.env, TMPDIR: folder }
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  t.same(await once(child, 'exit'), [7, null])
  t.same(readdirSync(folder), [])
})

t.test('only the folders of those are removed that are surely gone', t => {
  const own = ownerName()
  t.notOk(isOwnerGone(own))
  const [space, pid, start] = own.split('-') as [string, string, string]
  const earlier = `${space}-${pid}-${start === '00000000' ? '1' : '0'.repeat(8)}`
  t.ok(isOwnerGone(earlier), 'the number is in use again')
  const elsewhere = `${'0'.repeat(8)}-${pid}-${'0'.repeat(8)}`
  for (const name of [elsewhere, '', 'x', `${space}-0-${start}`, `${space}--1-${start}`]) t.notOk(isOwnerGone(name))
  const names = [own, earlier, elsewhere].map(name => `muster-handlers-${name}-abcdef`)
  const folder = t.testdir(Object.fromEntries([...names, 'another'].map(name => [name, { file: '' }])))
  removeLeftovers(folder)
  t.same(readdirSync(folder).sort(), [names[0], names[2], 'another'].sort())
  removeLeftovers(join(folder, 'nowhere'))
  t.end()
})
