/** The user data of the workers: rendered, checked, and run on simulated machines. */
import { spawnSync } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { renderUserData } from '../../src/fleet/providers/ec2/user-data.ts'
import { readSettings } from '../../src/settings.ts'
import { startFront } from '../support/aws/front.ts'
import { startMoto } from '../support/aws/moto.ts'
import { startSimulator } from '../support/aws/simulator.ts'
import { openEc2Parts } from '../support/ec2-parts.ts'
import { until } from '../support/until.ts'

const moto = await startMoto(t)
const front = await startFront(t, moto)

/** A worker that says what it was given, and stays, or ends as it is told. */
const fakeWorker = (end = 'setInterval(() => {}, 1000)') => `
console.log('worker ' + process.argv.slice(2) + ' ' + JSON.stringify(process.env))
process.on('SIGTERM', () => process.exit(0))
${end}
`
const settings = readSettings({
  ...{ MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_WORKER_DRAIN_MS: '45000', MUSTER_LOG_LEVEL: 'warn' },
  MUSTER_WORKER_TOKEN: `it's "$HOME" \`x\` \\ %`,
})

async function put(file: string, text: string, mode = 0o644): Promise<void> {
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, text)
  await chmod(file, mode)
}

/** Boots one instance from the rendered user data; once a test, since its simulator runs until the end of the test. */
async function boot(
  t: Test,
  nodeUrls: readonly string[],
  prepareDisk: (root: string) => void | Promise<void>,
  more: Partial<typeof settings> = {},
) {
  await front.reset()
  const parts = await openEc2Parts(t, front)
  await parts.createTemplate()
  const simulator = await startSimulator(t, { front, prepareDisk, pollMs: 50, whenAllEnds: 'stay-on' })
  const userData = await renderUserData({ ...settings, ...more }, nodeUrls)
  const provider = await parts.open({ userData })
  const [instance] = await provider.launch({ pool: 'images', count: 1, decisionId: 'd', slots: 3 })
  const id = instance?.id ?? ''
  await until(() => simulator.instances().length === 1)
  const machine = simulator.get(id)
  const said = async (what: RegExp): Promise<string> => {
    await until(() => what.test(machine.console())).catch(error => {
      throw new Error(`${error.message}\n${machine.console()}`)
    })
    return machine.console()
  }
  return { id, machine, said, provider }
}

t.test('the script is sound, whatever the settings hold, and small enough', async t => {
  const text = await renderUserData(settings, ['http://10.0.0.1:5000', 'http://10.0.0.2:5000'])
  t.notMatch(text, /@@/)
  t.equal(spawnSync('bash', ['-n'], { input: text }).status, 0)
  const many = Array.from({ length: 500 }, (_, n) => `http://node-${n}.example.com:5000`)
  await t.rejects(renderUserData(settings, many), { name: 'StartupError', message: /EC2 takes 16384/ })
  const plain = await renderUserData({ ...settings, workerToken: 'token' }, ['http://10.0.0.1:5000'])
  const shellcheck = spawnSync('shellcheck', ['-'], { input: plain, encoding: 'utf8' })
  if (shellcheck.error !== undefined && !process.env.CI) return t.comment('shellcheck is not installed')
  t.equal(shellcheck.stdout, '')
})

t.test('a worker in the image is started with all that it must know', async t => {
  const urls = ['http://10.0.0.1:5000', 'http://10.0.0.2:5000']
  const { id, machine, said, provider } = await boot(t, urls, async root => {
    await put(join(root, 'opt/muster/dist/cli.js'), fakeWorker())
    await put(join(root, 'opt/muster/handlers.mjs'), '')
  })
  const console = await said(/^worker /m)
  const line = /^worker (\S+) (.*)$/m.exec(console)
  t.equal(line?.[1], 'worker')
  const environment = JSON.parse(line?.[2] ?? '{}')
  t.match(environment, {
    MUSTER_NODE_URLS: urls.join(','),
    MUSTER_QUEUE: 'images',
    MUSTER_WORKER_SLOTS: '3',
    MUSTER_INSTANCE_ID: id,
    MUSTER_WORKER_TOKEN: settings.workerToken,
    MUSTER_LOG_LEVEL: 'warn',
    MUSTER_WORKER_DRAIN_MS: '45000',
    MUSTER_HANDLERS: /\/opt\/muster\/handlers\.mjs$/,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: machine.imds.url,
  })
  const file = join(machine.root, 'etc/muster/worker.env')
  t.equal((await stat(file)).mode & 0o777, 0o600, 'the token is for nobody else')
  t.match(await readFile(file, 'utf8'), `MUSTER_WORKER_TOKEN="it's \\"\\$HOME\\" \\\`x\\\` \\\\ %"`)
  const unit = await readFile(join(machine.root, 'etc/systemd/system/muster-worker.service'), 'utf8')
  t.match(unit, /TimeoutStopSec=75\n/)
  t.match(await provider.explainBoot(id), /becomes a worker of queue images with 3 slots/)
  t.notMatch(console.slice(0, console.indexOf('worker worker')), "it's", 'the script itself tells no token')
  if (spawnSync('systemd-analyze', ['--version']).status === 0) {
    const copy = join(t.testdir(), 'muster-worker.service')
    await writeFile(copy, unit)
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', copy], { encoding: 'utf8' })
    t.equal(status, 0, stderr)
  }
})

t.test('a worker that ended well takes its machine with it', async t => {
  const went = await boot(t, ['http://10.0.0.1:5000'], root =>
    put(join(root, 'opt/muster/dist/cli.js'), fakeWorker('process.exit(0)')),
  )
  await until(() => went.machine.state === 'gone')
  t.equal(went.machine.endedBy, 'power-off')
  await until(async () => (await went.provider.list()).length === 0)
})

/** A server with the code of the worker, which refuses it at first. */
async function startBundleServer(t: Test, refusals: readonly string[]) {
  const folder = await mkdtemp(join(tmpdir(), 'muster-bundle-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await put(join(folder, 'dist/cli.js'), fakeWorker())
  await put(join(folder, 'package.json'), '{}')
  const bundle = spawnSync('tar', ['-cz', '-C', folder, '.']).stdout
  const asked: string[] = []
  const server = createServer((request, response) => {
    const refusal = refusals[asked.length]
    asked.push(`${request.url} ${request.headers.authorization}`)
    if (refusal === '503') response.writeHead(503)
    response.end(refusal ?? bundle)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return { asked, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

t.test('the code comes from the first node that has it', async t => {
  const { asked, url } = await startBundleServer(t, ['503', 'no archive at all'])
  const { said } = await boot(t, ['http://127.0.0.1:9', url, url, url], () => undefined, { workerToken: 'token' })
  await said(/^worker /m)
  t.same(asked, Array(3).fill('/workers/bundle.tgz Bearer token'))
})

t.test('it may come from elsewhere, which gets no token', async t => {
  const { asked, url } = await startBundleServer(t, [])
  const bundleUrl = `${url}/muster.tgz`
  const { said } = await boot(t, ['http://127.0.0.1:9'], () => undefined, { workerToken: 'token', bundleUrl })
  await said(/^worker /m)
  t.same(asked, ['/muster.tgz undefined'])
})

t.test('without Node.js 20 the machine powers off, and its console says why', async t => {
  const old = await boot(t, ['http://127.0.0.1:9'], async root => {
    const programs = join(root, '../bin')
    await put(join(programs, 'node'), '#!/bin/sh\necho 18\n', 0o755)
    // Never the real ones: a test installs nothing.
    for (const name of ['dnf', 'apt-get']) await put(join(programs, name), '#!/bin/sh\nexit 1\n', 0o755)
  })
  await until(() => old.machine.state === 'gone')
  t.equal(old.machine.endedBy, 'power-off')
  t.match(await old.provider.explainBoot(old.id), /cannot become a worker: Node\.js 20 or newer is needed/)
})

t.test('so it does whatever fails', async t => {
  const odd = await boot(t, ['http://127.0.0.1:9'], async root => {
    await put(join(root, 'opt/muster/dist/cli.js'), fakeWorker())
    await put(join(root, 'etc/muster'), 'a file where a folder should be')
  })
  await until(() => odd.machine.state === 'gone')
  t.equal(odd.machine.endedBy, 'power-off')
  t.match(await odd.provider.explainBoot(odd.id), /cannot become a worker: line \d+ failed: mkdir/)
})
