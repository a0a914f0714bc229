/** The short run on real processes. Times are figures, not conditions: they depend on the machine. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { availableParallelism, loadavg, tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { until } from '../support/until.ts'
import { scenarios } from './scenarios.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const main = `${root}dist-faults/main.js`
const run = promisify(execFile)
/** Without the loaders that the test runner gives to every process: what is started here is built code. */
const node = ['-u', 'NODE_OPTIONS', process.execPath]

t.before(async () => {
  if (!existsSync(`${root}dist/cli.js`)) throw new Error('dist/ is missing: run "npm run build"')
  await run('env', [...node, `${root}node_modules/typescript/bin/tsc`, '-p', `${root}test/faults/tsconfig.json`])
})

t.test('Ctrl-C takes everything away', async t => {
  const child = spawn('env', [...node, main, '--only', 'planned-failover'], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const said = listen(child)
  const ended = once(child, 'exit')
  await until(() => said.text.includes('hosts:') || child.exitCode !== null)
  const leftBehind = async (): Promise<string[]> => (await readdir(tmpdir())).filter(name => name === said.folder())
  await until(async () => (await leftBehind()).length === 1)
  child.kill('SIGINT')
  t.same(await ended, [130, null], said.text)
  t.same(await leftBehind(), [])
})

t.test('the short run: nothing lost, nothing doubled, nothing wrong', async t => {
  const child = spawn('env', [...node, main, '--short', '--json'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGINT'))
  const said = listen(child)
  let output = ''
  child.stdout?.on('data', chunk => (output += chunk))
  const [code] = await once(child, 'close')
  t.comment(`${said.text}\n${output}`)
  const { scenarios: results, skipped, broken, network } = JSON.parse(output.trim().split('\n').at(-1) ?? '{}')
  // On a machine that has no time for its clients, connections wait unread until they are closed.
  const isOverloaded = (loadavg()[1] ?? 0) > 3 * availableParallelism()
  let isExcused = false
  for (const { name, acked, lost, doubled, faults } of results) {
    t.ok(acked > 300, `${name}: ${acked} jobs were acknowledged`)
    t.match({ name, lost, doubled }, { name, lost: 0, doubled: 0 })
    const excused = isOverloaded ? faults.filter((fault: string) => fault.startsWith('failed requests')) : []
    isExcused ||= excused.length > 0
    t.same(
      faults.filter((fault: string) => !excused.includes(fault)),
      [],
      `${name}: nothing else is wrong`,
    )
  }
  t.same(broken, [])
  t.equal(results.length + skipped.length, scenarios.filter(({ short }) => short).length)
  if (network === 'namespaces') t.same(skipped, [])
  t.equal(code, isExcused ? 1 : 0)
})

/** What a run says, and the folder that it works in. */
function listen(child: ChildProcess): { text: string; folder: () => string | undefined } {
  const said = { text: '', folder: () => /muster-faults-\w+/.exec(said.text)?.[0] }
  child.stderr?.on('data', chunk => (said.text += chunk))
  return said
}
