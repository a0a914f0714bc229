/**
 * Every command that the documents name is run: here, in a copy of the tree as a reader has it after his first start, or by the
 * test that is named beside it. What cannot be run by a test says why.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { freePort } from '../support/node-process.ts'
import { until } from '../support/until.ts'
import { commandsOf, documents } from './documented-commands.ts'

t.setTimeout(600_000)

/** Of a command as `plain()` writes it. */
interface Rule {
  readonly command: RegExp
  /** Another file that runs it, and what stands there when it does. */
  readonly by?: readonly [file: string, says: string]
  /** This file runs it. */
  readonly here?: true
  /** Why no test does. */
  readonly because?: string
}

const root = fileURLToPath(new URL('../../', import.meta.url))
const realMachines = 'it acts on a stack in an AWS account'

const rules: readonly Rule[] = [
  { command: /^\.\/scripts\/start\.sh( --handlers \S+)?$/, here: true },
  { command: /^\.\/scripts\/test\.sh\b/, by: ['.ci/run', 'exec ./scripts/test.sh'] },
  { command: /^(echo -n \w+ \| )?curl /, here: true },
  { command: /^npm run (build|openapi|build:kernel)\b/, here: true },
  { command: /^npm run typecheck$/, by: ['scripts/test.sh', 'node_modules/.bin/tsc'] },
  { command: /^npm run lint$/, by: ['scripts/test.sh', 'biome check .'] },
  { command: /^npm run format$/, because: 'it is "npm run lint", and writes what that one says' },
  { command: /^npm run (bench|faults|drive|regression)\b/, here: true },
  { command: /^npm ci\b/, by: ['scripts/lib/install.sh', 'npm ci'] },
  { command: /^npx tap /, because: 'it runs one file of these tests' },
  { command: /^muster node$/, by: ['test/support/node-process.ts', "[cli, 'node', ...args]"] },
  { command: /^muster worker$/, by: ['test/e2e/node-versions.test.ts', "[cli, 'worker']"] },
  { command: /^muster (settings|fleet explain|doctor)( |$)/, here: true },
  { command: /^muster keys (create|list|rotate|revoke)( |$)/, here: true },
  { command: /^muster redis (init|secrets)( |$)/, here: true },
  { command: /^set -a; \. copies\/node\.env; set \+a$/, here: true },
  { command: /^muster redis( run( |$)|$)/, by: ['test/support/redis-copies.ts', "'redis', 'run'"] },
  { command: /^muster redis status\b/, by: ['test/redis/copies.test.ts', "'redis', 'status'"] },
  { command: /^muster redis failover\b/, by: ['test/redis/copies.test.ts', "'redis', 'failover'"] },
  { command: /^muster redis backup --to /, by: ['test/deploy/backup.long.ts', "'backup', '--to'"] },
  { command: /^muster redis backups --from /, by: ['test/deploy/backup.long.ts', "'backups', '--from'"] },
  { command: /^muster redis restore --from /, by: ['test/deploy/backup.long.ts', "'restore', '--from'"] },
  { command: /^redis-cli -s /, here: true },
  { command: /^redis-cli -h .* --askpass$/, because: 'it asks for a password at a terminal' },
  { command: /^\.\/setup\.sh --status/, by: ['test/deploy/setup.test.ts', "['--status'"] },
  { command: /^\.\/setup\.sh --delete/, by: ['test/deploy/setup.test.ts', "['--delete'"] },
  { command: /^\.\/setup\.sh --worker-ami/, by: ['scripts/lib/deploy/options.sh', '--worker-ami'] },
  { command: /^(git pull && )?\.\/setup\.sh/, by: ['test/deploy/setup.test.ts', "'--client-cidr'"] },
  { command: /^aws cloudformation deploy .*pipeline\.yaml/, by: ['test/deploy/pipeline.test.ts', 'pipeline.yaml'] },
  { command: /^aws /, because: realMachines },
  { command: /^git /, because: 'it changes the tree of the reader' },
  { command: /^(docker|sudo systemctl) /, because: 'these tests have neither Docker nor an init system' },
]

/** Without what is before and around it: variables, sudo, the way to the program. */
const plain = (text: string): string =>
  text
    .replace(/^(?:[A-Z0-9_]+=\S* +)+/, '')
    .replace(/^sudo muster /, 'muster ')
    .replace(/^node (?:--\S+ )*dist\/cli\.js/, 'muster')
    .replace(/^docker compose .*/, 'docker compose')

const documented = documents(root).flatMap(document => commandsOf(root, document))

/** A copy, so that what is built there disturbs no other test. */
async function copyTree(): Promise<string> {
  const copy = await mkdtemp(join(tmpdir(), 'muster-docs-'))
  t.teardown(() => rm(copy, { recursive: true, force: true }))
  const left = /^(node_modules|dist.*|coverage|\.git|\.tap|\.muster|\.env)$/
  for (const name of await readdir(root)) {
    if (!left.test(name)) await cp(join(root, name), join(copy, name), { recursive: true, preserveTimestamps: true })
  }
  const packages = join(copy, 'node_modules')
  await mkdir(packages)
  for (const name of await readdir(join(root, 'node_modules')))
    await symlink(join(root, 'node_modules', name), join(packages, name))
  const stamp = join(packages, '.muster-installed')
  await rm(stamp, { force: true })
  await cp(join(root, 'package-lock.json'), stamp)
  return copy
}

const copy = await copyTree()
const inherited = Object.entries(process.env).filter(([name]) => !/^(MUSTER_|NODE_OPTIONS|npm_|TAP)/.test(name))
const environment = { ...Object.fromEntries(inherited), MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_DATA_DIR: '.muster' }

/** Without the loaders that the test runner gives to every process: what is started here is what a user has. */
const bash = ['-u', 'NODE_OPTIONS', 'bash', '-c']

interface Outcome {
  readonly code: number | null
  /** Standard output, then standard error. */
  readonly said: string
}

/** Runs a line of a shell in the copy, to its end. */
async function sh(line: string, env: Record<string, string> = {}): Promise<Outcome> {
  const child = spawn('env', [...bash, line], {
    cwd: copy,
    env: { ...environment, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.on('data', (chunk: Buffer) => (out += chunk))
  child.stderr.on('data', (chunk: Buffer) => (err += chunk))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, said: out + err }
}

t.test('every command of a document is run somewhere, or says why not', async t => {
  t.ok(documented.length > 80, 'the documents are read')
  const used = new Set<Rule>()
  for (const { where, text } of documented) {
    const rule = rules.find(({ command }) => command.test(plain(text)))
    if (rule === undefined) t.fail(`${where}: no test is named that runs "${text}"`)
    else used.add(rule)
  }
  for (const { by } of used) {
    if (by === undefined) continue
    const [file, says] = by
    t.ok((await readFile(join(root, file), 'utf8')).includes(says), `${file} has ${says}`)
  }
})

t.test('what npm runs', async t => {
  const built = await sh('npm run build')
  t.equal(built.code, 0, built.said)
  // Built once is enough: the others begin with it.
  const manifest = await readFile(join(copy, 'package.json'), 'utf8')
  const { scripts, ...others } = JSON.parse(manifest)
  await writeFile(
    join(copy, 'package.json'),
    JSON.stringify({ ...others, scripts: { ...scripts, build: 'test -f dist/cli.js' } }),
  )
  for (const [line, said] of [
    ['npm run build && npm run openapi', /openapi/],
    ['npm run build:kernel', /build-kernel/],
    ['npm run bench -- --short --json', /\n\{"enqueueRatio":.*\}\n/],
    ['npm run faults -- --list', /primary-sigkill/],
    ['npm run drive -- --help', /--seed/],
    ['npm run regression -- --help', /--url/],
  ] as const) {
    const outcome = await sh(line)
    t.equal(outcome.code, 0, `${line}\n${outcome.said}`)
    t.match(outcome.said, said, line)
  }
  await writeFile(join(copy, 'package.json'), manifest)
})

t.test('the README, from the start of a node to its keys', async t => {
  const [, handlers = ''] =
    /```js\n(\/\/ my-handlers\.js\n[\s\S]*?)```/.exec(await readFile(join(root, 'README.md'), 'utf8')) ?? []
  await writeFile(join(copy, 'my-handlers.js'), handlers)
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const env = { MUSTER_PORT: String(port), MUSTER_MAX_WORKERS: '1', MUSTER_NODE_URLS: url }
  const start = documented.find(({ text }) => /^\.\/scripts\/start\.sh --handlers/.test(text))
  const node: ChildProcess = spawn('env', [...bash, `exec ${start?.text}`], {
    cwd: copy,
    env: { ...environment, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const gone = once(node, 'exit')
  t.teardown(async () => {
    node.kill('SIGTERM')
    await gone
  })
  let said = ''
  for (const stream of [node.stdout, node.stderr]) stream?.on('data', (chunk: Buffer) => (said += chunk))
  await until(() => said.includes('Muster is ready') || node.exitCode !== null, 60_000)
  t.match(said, `Muster is ready at ${url}`)

  /** curl, but a status of 400 or more is a failure and is shown. */
  const curl = 'curl() { command curl -sS --fail-with-body --max-time 90 "$@"; }; '
  const here = (text: string): string => text.replaceAll(/http:\/\/(127\.0\.0\.1|the-node):5000/g, url)
  for (const { where, text } of documented) {
    if (!/\bcurl /.test(text) || text.includes('Authorization')) continue
    const outcome = await sh(`set -o pipefail; ${curl}${here(text)}`, env)
    t.equal(outcome.code, 0, `${where}: ${text}\n${outcome.said}`)
  }
  const pulled = await sh(`${curl} curl -X POST '${url}/pullCompleted?top=10&waitMs=60000'`, env)
  t.match(pulled.said, /"Value"/)

  const muster = (line: string, more = {}): Promise<Outcome> => sh(`node dist/cli.js ${line}`, { ...env, ...more })
  const well = async (line: string, expected: RegExp | string, more = {}): Promise<string> => {
    const outcome = await muster(line, more)
    t.equal(outcome.code, 0, `${line}\n${outcome.said}`)
    t.match(outcome.said, expected, line)
    return outcome.said
  }
  await well('settings', /MUSTER_PORT/)
  await well('fleet explain', /./)
  const ping = await sh(
    'redis-cli -s "$(find .muster /tmp -maxdepth 3 -name redis.sock -path "*$MUSTER_SOCKET*" 2>/dev/null | head -n 1)" PING',
    {
      MUSTER_SOCKET: 'muster',
    },
  )
  t.match(ping.said, /PONG/)
  for (const { where, text } of documented) {
    if (!/^(node dist\/cli\.js|muster) keys create /.test(text)) continue
    const outcome = await muster(plain(text).replace(/^muster /, ''))
    t.equal(outcome.code, 0, `${where}: ${text}\n${outcome.said}`)
  }
  const created = await well(
    'keys create --name everything --role submit --role collect --role read --role operate',
    /muster_\S+/,
  )
  const [key = ''] = /muster_\S+/.exec(created) ?? []
  const withKey = documented.filter(({ text }) => text.startsWith('curl ') && text.includes('$MUSTER_API_KEY'))
  for (const { where, text } of withKey) {
    const outcome = await sh(`${curl}${here(text)}`, { ...env, MUSTER_API_KEY: key })
    t.equal(outcome.code, 0, `${where}: ${text}\n${outcome.said}`)
  }
  const list = await well('keys list', /everything/)
  const [id = ''] =
    list
      .split('\n')
      .find(line => line.includes('everything'))
      ?.match(/^\S+/) ?? []
  await well(`keys rotate ${id} --grace 24h`, /muster_\S+/)
  await well(`keys revoke ${id}`, /./)
  const doctor = await muster(`doctor --url ${url} --json`, { MUSTER_API_KEY: key })
  t.ok(JSON.parse(/\{[\s\S]*\}/.exec(doctor.said)?.[0] ?? '{}').checks, doctor.said)
  t.match((await muster('doctor', { MUSTER_API_KEY: key })).said, /nodes-live/)
})

t.test('what two nodes by hand begin with', async t => {
  for (const line of [
    'node dist/cli.js redis init --hosts a=10.0.1.10,b=10.0.2.10,c=10.0.3.10 --out copies',
    'set -a; . copies/node.env; set +a; test -n "$MUSTER_REDIS_URL"',
    'node dist/cli.js redis secrets --out secrets.json',
    'node dist/cli.js redis secrets --out secrets.json --renew-certificate',
    'node dist/cli.js redis init --secrets secrets.json --only a --hosts a=10.0.1.10,b=10.0.2.10,c=10.0.3.10 --out etc',
  ]) {
    const outcome = await sh(line)
    t.equal(outcome.code, 0, `${line}\n${outcome.said}`)
  }
})
