/** What the commands say, and where: JSON alone for machines, words and colours for people. Runs the built code. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { describeCounts, welcome } from '../../src/cli/terminal-lines.ts'
import { AttemptLog } from '../../src/jobs/run/attempt-log.ts'
import { haveTool } from '../support/have-tool.ts'
import { cli, startNodeProcess } from '../support/node-process.ts'
import { patienceMs, until } from '../support/until.ts'

const folder = async (t: Test): Promise<string> => {
  const path = await mkdtemp(join(tmpdir(), 'muster-cli-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}
const cleanEnvironment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('MUSTER_') && name !== 'NODE_OPTIONS'),
)
const linesOf = (text: string): Record<string, unknown>[] =>
  text
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as Record<string, unknown>)

t.test('without a terminal standard output is JSON alone, and failed attempts are in it', async t => {
  const handlers = join(await folder(t), 'handlers.mjs')
  const body =
    "import { defineHandler } from 'muster'\nexport const no = defineHandler({ type: 'no', handle() { throw new TypeError('not today') } })\n"
  await writeFile(handlers, body)
  const node = await startNodeProcess(t, { MUSTER_BACKOFF_MS: '1' }, ['--handlers', handlers])
  const put = await fetch(`${node.url}/enqueue?type=no&attempts=2`, { method: 'PUT' })
  const { 'Work ID': workId } = (await put.json()) as { 'Work ID': string }
  const said = () => linesOf(node.stdout().slice(0, node.stdout().lastIndexOf('\n') + 1))
  await until(() => said().some(line => line.workId === workId && line.level === 'error'))
  const attempts = said().filter(line => line.workId === workId)
  t.match(attempts, [
    { level: 'warn', type: 'no', queue: 'default', attempt: 1, attempts: 2, message: /not today/ },
    { level: 'error', type: 'no', queue: 'default', attempt: 2, attempts: 2, message: /not today/ },
  ])
  t.match(node.output(), /Muster is ready at http/)
  node.kill('SIGTERM')
  await node.ended()
  t.ok(linesOf(node.stdout()).every(line => typeof line.level === 'string' && typeof line.time === 'string'))
  t.match(node.output(), /Stopping: /)
})

t.test('in a terminal it is lines for people, plain with NO_COLOR', async t => {
  if (!haveTool(t, 'script', 'apt-get install bsdutils')) return
  const colorCode = '\u001b['
  for (const noColor of ['', '1']) {
    const env = {
      ...cleanEnvironment,
      ...{ MUSTER_DATA_DIR: await folder(t), MUSTER_PORT: '0', MUSTER_FLEET: 'none' },
      ...{ NO_COLOR: noColor, TERM: 'xterm', FORCE_COLOR: '' },
    }
    const child = spawn('script', ['-qec', `'${process.execPath}' '${cli}' node`, '/dev/null'], {
      env,
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    })
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => (said += chunk))
    const gone = once(child, 'exit')
    t.teardown(() => {
      if (child.exitCode === null) process.kill(-(child.pid as number), 'SIGKILL')
    })
    let hasEnded = false
    void gone.then(() => (hasEnded = true))
    await until(() => hasEnded || (said.includes('Muster is ready') && said.includes('INFO')))
    t.match(said, /Muster is ready/)
    t.equal(said.includes(`${colorCode}3`), noColor === '', `colours with NO_COLOR="${noColor}"`)
    t.notMatch(said, /^\{"level"/m)
    child.stdin.write('\u0003')
    await gone
  }
})

t.test('a key is never made where no node looks for it by accident', async t => {
  const cwd = await folder(t)
  const muster = (args: readonly string[], environment: Record<string, string> = {}) => {
    const env = { ...cleanEnvironment, ...environment }
    return spawnSync(process.execPath, [cli, ...args], { cwd, env, encoding: 'utf8', timeout: patienceMs })
  }
  const create = ['keys', 'create', '--name', 'me', '--role', 'read']
  const refused = muster(create)
  t.equal(refused.status, 1)
  t.match(refused.stderr, /No node was ever started on .*\.muster.*--data-dir/)
  t.equal(refused.stdout, '')
  t.notOk(existsSync(join(cwd, '.muster')), 'nothing was made')
  const made = muster([...create, '--data-dir', 'named'])
  t.match(made, { status: 0, stdout: /^muster_/, stderr: /Where: .*named, where no node runs now/ })
  t.match(muster(['keys', 'list'], { MUSTER_DATA_DIR: 'named' }), { status: 0, stdout: / me / })

  const node = await startNodeProcess(t, { MUSTER_FLEET: 'none' })
  const atNode = muster([...create, '--data-dir', node.dataDir])
  t.match(atNode, { status: 0, stderr: new RegExp(`Where: the node that runs on ${node.dataDir}`) })
  const key = atNode.stdout.trim()
  t.equal((await fetch(`${node.url}/status`)).status, 401, 'the node knows it')
  const asked = muster(['keys', 'list', '--url', node.url], { MUSTER_API_KEY: key })
  t.match(asked, { status: 1, stderr: /operate/ }, 'a key that only reads')
  t.match(muster(['keys', 'list', '--url', node.url]), { status: 1, stderr: /key/i }, '--url asks the node')
})

t.test('.env in the folder is read; the environment goes before it', async t => {
  const cwd = await folder(t)
  await writeFile(
    join(cwd, '.env'),
    "MUSTER_MAX_WORKERS=7\nMUSTER_TARGET_WAIT_MS='30s' # a comment\nMUSTER_PORT=1234\n",
  )
  const settings = (environment: Record<string, string>): Record<string, string> => {
    const env = { ...cleanEnvironment, ...environment }
    const { stdout } = spawnSync(process.execPath, [cli, 'settings', '--json'], { cwd, env, encoding: 'utf8' })
    return JSON.parse(stdout) as Record<string, string>
  }
  t.match(settings({ MUSTER_PORT: '4321' }), {
    MUSTER_MAX_WORKERS: '7',
    MUSTER_TARGET_WAIT_MS: '30000',
    MUSTER_PORT: '4321',
  })
  await rm(join(cwd, '.env'))
  t.match(settings({}), { MUSTER_MAX_WORKERS: '4' })
})

t.test('the first steps are shown with a key where one is needed', async t => {
  t.notMatch(welcome('http://x', false), /Authorization/)
  t.equal(welcome('http://x', true).match(/-H "Authorization: Bearer \$MUSTER_API_KEY"/g)?.length, 3)
})

t.test('a flood of failures is counted, not told one by one', async t => {
  const lines: { msg: string; count?: number }[] = []
  const log = pino({ base: null }, { write: line => void lines.push(JSON.parse(line)) })
  const attempts = new AttemptLog(log)
  const failure = { queue: 'q', type: 't', workId: 'w', attempt: 1, attempts: 1, code: 'handler_error' }
  for (let i = 0; i < 1000; i += 1) attempts.failed({ ...failure, message: 'x'.repeat(5000) }, true)
  const told = lines.length
  t.ok(told > 0 && told < 50)
  t.ok(lines.every(line => JSON.stringify(line).length < 1000))
  attempts.close()
  t.match(lines.at(-1), { count: 1000 - told })
  attempts.failed({ ...failure, message: 'x' }, false)
  t.match(lines.at(-1), { msg: /tried again/ }, 'a new window')
  attempts.close()
})

t.test('counts in words', async t => {
  const none = { waiting: 0, delayed: 0, running: 0, succeeded: 0, dead: 0, cancelled: 0, uncollected: 0, leased: 0 }
  t.equal(describeCounts('default', none), 'default: no jobs')
  t.equal(
    describeCounts('images', { ...none, waiting: 12, running: 4, succeeded: 96, uncollected: 30, dead: 1 }),
    'images: 12 waiting, 4 running, 96 succeeded (30 to collect), 1 dead',
  )
})
