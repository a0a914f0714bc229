/**
 * Every command that the documents name is run: here, in a copy of the tree as a reader has it after his first start, or by the
 * test that is named beside it. What cannot be run by a test says why.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startNodeProcess } from '../support/node-process.ts'
import { commandsOf, documents } from './documented-commands.ts'

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
  {
    command: /^\.\/scripts\/start\.sh( --handlers \S+)?$/,
    because: 'it installs and builds as scripts/test.sh does, and then is "muster node"',
  },
  { command: /^\.\/scripts\/test\.sh\b/, by: ['.ci/run', 'exec ./scripts/test.sh'] },
  { command: /^(echo -n \w+ \| )?curl /, here: true },
  { command: /^npm run (build|openapi|build:kernel)\b/, here: true },
  { command: /^npm run typecheck$/, by: ['scripts/test.sh', 'node_modules/.bin/tsc'] },
  { command: /^npm run lint$/, by: ['scripts/test.sh', 'biome check .'] },
  { command: /^npm run format$/, because: 'it is "npm run lint", and writes what that one says' },
  { command: /^npm run (bench|faults|drive|regression)\b/, here: true },
  { command: /^npm ci\b/, by: ['scripts/lib/install.sh', 'npm ci'] },
  {
    command: /^muster handlers bundle \S+ --out /,
    by: ['test/deploy/setup.test.ts', "'handlers', 'bundle', handlersFile, '--out'"],
  },
  { command: /^muster handlers bundle$/, because: 'named in passing, without the file that it takes' },
  {
    command: /^muster handlers deploy /,
    by: ['test/e2e/handlers-replaced.test.ts', "[cli, 'handlers', 'deploy', two, '--url', b.url]"],
  },
  { command: /^npm (pack|install --save-dev)$/, because: 'named in passing, without what it takes' },
  { command: /^npm exec$/, because: 'the sentence advises against it' },
  { command: /^npx tap /, because: 'it runs one file of these tests' },
  { command: /^muster$/, because: 'it names the program, without what it takes' },
  { command: /^muster node$/, by: ['test/support/node-process.ts', "[entry, 'node', ...args]"] },
  { command: /^muster worker$/, by: ['test/e2e/node-versions.test.ts', "[cli, 'worker']"] },
  { command: /^muster settings$/, by: ['test/access/secrets.test.ts', "run(['settings'])"] },
  { command: /^muster fleet explain$/, by: ['test/access/node.test.ts', "muster(['fleet', 'explain']"] },
  { command: /^muster doctor( |$)/, by: ['test/doctor/doctor.test.ts', "[cli, 'doctor', ...args]"] },
  { command: /^muster keys create( |$)/, by: ['test/access/node.test.ts', "['keys', 'create', '--name', 'ci'"] },
  { command: /^muster keys list$/, by: ['test/access/node.test.ts', "muster(['keys', 'list']"] },
  {
    command: /^muster keys rotate /,
    by: ['test/access/node.test.ts', "muster(['keys', 'rotate', 'workers', '--grace', '1h']"],
  },
  { command: /^muster keys revoke /, by: ['test/access/node.test.ts', "muster(['keys', 'revoke'"] },
  { command: /^muster redis init( |$)/, here: true },
  { command: /^muster redis secrets( |$)/, here: true },
  { command: /^set -a; \. redis\/node\.env; set \+a$/, here: true },
  { command: /^muster redis( run( |$)|$)/, by: ['test/support/redis-group.ts', "'redis', 'run'"] },
  { command: /^muster redis status\b/, by: ['test/redis-server/ha/replication-group.test.ts', "'redis', 'status'"] },
  {
    command: /^muster redis failover\b/,
    by: ['test/redis-server/ha/replication-group.test.ts', "'redis', 'failover'"],
  },
  { command: /^muster redis backup --to /, by: ['test/deploy/backup.long.ts', "'backup', '--to'"] },
  { command: /^muster redis backups --from /, by: ['test/deploy/backup.long.ts', "'backups', '--from'"] },
  { command: /^muster redis restore --from /, by: ['test/deploy/backup.long.ts', "'restore', '--from'"] },
  { command: /^redis-cli -s /, because: 'it opens a prompt for somebody who looks around' },
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

t.test('what is built and written', async t => {
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
    ['node dist/cli.js redis init --hosts a=10.0.1.10,b=10.0.2.10,c=10.0.3.10 --out redis', /^/],
    ['set -a; . redis/node.env; set +a; echo "$MUSTER_REDIS_URL"', /sentinel/],
    ['node dist/cli.js redis secrets --out secrets.json', /^/],
    ['node dist/cli.js redis secrets --out secrets.json --renew-certificate', /^/],
  ] as const) {
    const outcome = await sh(line)
    t.equal(outcome.code, 0, `${line}\n${outcome.said}`)
    t.match(outcome.said, said, line)
  }
  await writeFile(join(copy, 'package.json'), manifest)
})

t.test('what the documents ask of a node with curl', async t => {
  const page = await readFile(join(root, 'docs/handlers.md'), 'utf8')
  const [, handlers, name] = /```\w+\n(\/\/ (my-handlers\.\w+)\b[\s\S]*?)```/.exec(page) ?? []
  if (handlers === undefined || name === undefined) throw new Error('docs/handlers.md has no handlers')
  const file = join(copy, name)
  await writeFile(file, handlers)
  const node = await startNodeProcess(t, { MUSTER_MAX_WORKERS: '1' }, ['--handlers', file])
  /** curl, but a status of 400 or more is a failure and is shown. */
  const curl = 'set -o pipefail; curl() { command curl -sS --fail-with-body --max-time 90 "$@"; }; '
  const there = /http:\/\/(127\.0\.0\.1|the-node):5000/g
  for (const { where, text } of documented) {
    if (!/\bcurl /.test(text)) continue
    const outcome = await sh(curl + text.replaceAll(there, node.url), { MUSTER_API_KEY: 'none-is-asked-for' })
    t.equal(outcome.code, 0, `${where}: ${text}\n${outcome.said}`)
  }
})
