/** The user data of the workers: rendered, checked, and run on simulated machines. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, cp, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { renderUserData } from '../../src/fleet/providers/ec2/user-data.ts'
import { makeAuthority, makeServerCertificate } from '../../src/redis-server/ha/certificates.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { startFront } from '../support/aws/front.ts'
import { startMoto } from '../support/aws/moto.ts'
import { startSimulator } from '../support/aws/simulator.ts'
import { openEc2Parts } from '../support/ec2-parts.ts'
import { until } from '../support/until.ts'

const moto = await startMoto(t)
const front = await startFront(t, moto)

const joinSecret = `join-${'j'.repeat(32)}`
const token = 'mwt.claims.signature'

/** A worker that says what it was given, and stays, or ends as it is told. */
const fakeWorker = (end = 'setInterval(() => {}, 1000)') => `
console.log('worker ' + process.argv.slice(2) + ' ' + JSON.stringify(process.env))
process.on('SIGTERM', () => process.exit(0))
${end}
`
const settings = readSettings({
  ...{
    MUSTER_CONFIG_FILE: '/nonexistent',
    MUSTER_WORKER_DRAIN_MS: '45000',
    MUSTER_SLOT_MEMORY_MB: '700',
    MUSTER_LOG_LEVEL: 'warn',
  },
  // What belongs to the node alone.
  MUSTER_WORKER_TOKEN: 'token-of-the-node',
  MUSTER_WORKER_JOIN_SECRET: `secret-of-the-node-${'s'.repeat(32)}`,
  MUSTER_OPERATOR_KEY: `operator-of-the-node-${'k'.repeat(32)}`,
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
  placement: { handlerMetadata?: 'yes' } = {},
) {
  await front.reset()
  const parts = await openEc2Parts(t, front)
  await parts.createTemplate()
  // As on a real machine: AWS is where its command line finds it, with the keys of the instance profile.
  const environment = { AWS_ENDPOINT_URL: moto.url, AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' }
  const simulator = await startSimulator(t, { front, prepareDisk, pollMs: 50, whenAllEnds: 'stay-on', environment })
  const userData = await renderUserData({ ...settings, ...more }, nodeUrls)
  const provider = await parts.open({ userData, placement })
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
  t.notMatch(text, /-of-the-node/, 'no secret is in what everybody may read who may describe instances')
  const plain = await renderUserData({ ...settings, workerJoinParameter: '/muster/join' }, ['http://10.0.0.1:5000'])
  t.match(plain, "join_parameter='/muster/join'")
  const shellcheck = spawnSync('shellcheck', ['-'], { input: plain, encoding: 'utf8' })
  if (shellcheck.error !== undefined && !process.env.CI) return t.comment('shellcheck is not installed')
  t.equal(shellcheck.stdout, '')
})

t.test('a worker in the image is started with all that it must know', async t => {
  const urls = ['http://10.0.0.1:5000', 'http://10.0.0.2:5000']
  const { id, machine, said, provider } = await boot(t, urls, async root => {
    await put(join(root, 'opt/muster/dist/cli.js'), fakeWorker())
    await put(join(root, 'opt/muster/handlers.mjs'), '')
    // An image may hold a key, quoted as systemd has it.
    await put(join(root, 'etc/muster/token.env'), 'MUSTER_WORKER_TOKEN="it\'s \\"\\$HOME\\""\n')
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
    MUSTER_WORKER_TOKEN: `it's "$HOME"`,
    MUSTER_LOG_LEVEL: 'warn',
    MUSTER_WORKER_DRAIN_MS: '45000',
    MUSTER_SLOT_MEMORY_MB: '700',
    MUSTER_HANDLERS: /\/opt\/muster\/handlers\.mjs$/,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: /^http:\/\/127\.0\.0\.1:\d+$/,
  })
  const file = join(machine.root, 'etc/muster/worker.env')
  t.equal((await stat(file)).mode & 0o777, 0o600)
  // What the worker and its handlers reach of the metadata service: the end of the instance, and not its role or identity.
  const proxy = environment.AWS_EC2_METADATA_SERVICE_ENDPOINT as string
  t.not(proxy, machine.imds.url)
  const token = await fetch(`${proxy}/latest/api/token`, {
    ...{ method: 'PUT', headers: { 'x-aws-ec2-metadata-token-ttl-seconds': '60' } },
  })
  const headers = { 'x-aws-ec2-metadata-token': await token.text() }
  const notice = async (): Promise<number> =>
    (await fetch(`${proxy}/latest/meta-data/spot/instance-action`, { headers })).status
  t.equal(await notice(), 404, 'no notice')
  for (const path of [
    'meta-data/iam/security-credentials',
    'dynamic/instance-identity/rsa2048',
    'meta-data/instance-id',
    'user-data',
  ])
    t.equal((await fetch(`${proxy}/latest/${path}`, { headers })).status, 404, path)
  const unit = await readFile(join(machine.root, 'etc/systemd/system/muster-worker.service'), 'utf8')
  const ofPeople = await readFile(new URL('../../deploy/systemd/muster-worker.service', import.meta.url), 'utf8')
  for (const line of [
    'OOMPolicy=continue',
    'TasksMax=4096',
    'NoNewPrivileges=yes',
    'ProtectSystem=strict',
    'MemoryMax=90%',
  ]) {
    t.match(unit, `\n${line}\n`)
    t.match(ofPeople, `\n${line}\n`)
  }
  t.match(unit, '\nIPAddressDeny=169.254.169.254 fd00:ec2::254\n')
  t.match(unit, /TimeoutStopSec=75\n/)
  t.match(await provider.explainBoot(id), /becomes a worker of queue images with 3 slots/)
  t.notMatch(console.slice(0, console.indexOf('worker worker')), "it's", 'the script itself tells no token')
  if (spawnSync('systemd-analyze', ['--version']).status === 0) {
    const copies = join(t.testdir(), 'units')
    await cp(join(machine.root, 'etc/systemd/system'), copies, { recursive: true })
    const names = ['muster-metadata', 'muster-join', 'muster-worker'].map(name => join(copies, `${name}.service`))
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', ...names], { encoding: 'utf8' })
    t.equal(status, 0, stderr)
  }
})

t.test('handlers reach the metadata service where their pool asks for it', async t => {
  await front.reset()
  const parts = await openEc2Parts(t, front)
  await parts.createTemplate()
  const provider = await parts.open({ placement: { handlerMetadata: 'yes' } })
  await provider.launch({ pool: 'images', count: 1, decisionId: 'd', slots: 3 })
  const { Reservations = [] } = await parts.admin.describeInstances({})
  const tags = Reservations[0]?.Instances?.[0]?.Tags?.filter(({ Key }) => Key === 'muster:metadata')
  t.match(tags, [{ Value: 'yes' }])
  const { machine, said } = await boot(
    t,
    ['http://10.0.0.1:5000'],
    root => put(join(root, 'opt/muster/dist/cli.js'), fakeWorker()),
    {},
    { handlerMetadata: 'yes' },
  )
  await said(/^worker /m)
  const unit = await readFile(join(machine.root, 'etc/systemd/system/muster-worker.service'), 'utf8')
  t.notMatch(unit, 'IPAddressDeny')
})

t.test('a worker that ended well takes its machine with it', async t => {
  const went = await boot(t, ['http://10.0.0.1:5000'], root =>
    put(join(root, 'opt/muster/dist/cli.js'), fakeWorker('process.exit(0)')),
  )
  await until(() => went.machine.state === 'gone')
  t.equal(went.machine.endedBy, 'power-off')
  await until(async () => (await went.provider.list()).length === 0)
})

/** A node: gives tokens to who knows the join secret, and the code of the worker, after some refusals. */
async function startNodeServer(t: Test, refusals: readonly string[] = [], tls?: { cert: string; key: string }) {
  const folder = await mkdtemp(join(tmpdir(), 'muster-bundle-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await put(join(folder, 'dist/cli.js'), fakeWorker())
  await put(join(folder, 'package.json'), '{}')
  const bundle = spawnSync('tar', ['-cz', '-C', folder, '.']).stdout
  const asked: string[] = []
  const joined: string[] = []
  const answer: RequestListener = (request, response) => {
    if (request.url === '/workers/join') {
      let body = ''
      request.on('data', chunk => {
        body += chunk
      })
      request.on('end', () => {
        joined.push(`${request.headers.authorization} ${body}`)
        // EC2 may show a new instance late.
        if (joined.length === 1) response.writeHead(404)
        response.end(JSON.stringify({ token: `${token}-${joined.length}`, expiresAt: '' }))
      })
      return
    }
    const refusal = refusals[asked.length]
    asked.push(`${request.url} ${request.headers.authorization}`)
    if (refusal === '503') response.writeHead(503)
    response.end(refusal ?? bundle)
  }
  const server = tls === undefined ? createServer(answer) : createTlsServer(tls, answer)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const bundleSha256 = createHash('sha256').update(bundle).digest('hex')
  return {
    asked,
    joined,
    bundleSha256,
    url: tls === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`,
  }
}
const withSecret = (root: string): Promise<void> => put(join(root, 'etc/muster/join-secret'), `${joinSecret}\n`, 0o600)

t.test(
  'with a join secret in its image an instance gets a token, and the code from the first node that has it',
  async t => {
    const { asked, joined, url, bundleSha256 } = await startNodeServer(t, ['503', 'no archive at all'])
    const urls = ['http://127.0.0.1:9', url, url, url]
    const { id, machine, said } = await boot(t, urls, withSecret, { bundleSha256 })
    const console = await said(/^worker /m)
    t.equal(joined.length, 3, 'refused once, then for the boot, then for the start of the worker')
    const shown = joined.map(text => JSON.parse(text.slice(text.indexOf('{'))))
    for (const [at, text] of joined.entries()) {
      t.ok(text.startsWith(`Bearer ${joinSecret} `))
      const document = Buffer.from(shown[at].document, 'base64').toString()
      t.match(shown[at], { instanceId: id, queue: 'images', nonce: /^[0-9a-f]{64}$/ })
      t.equal(shown[at].nonce, shown[0].nonce, 'the word of its first join')
      t.equal(JSON.parse(document).instanceId, id, 'its identity document, in one line')
    }
    t.equal((await stat(join(machine.root, 'etc/muster/join-nonce'))).mode & 0o777, 0o600)
    t.match(console, `${url} gives another bundle than that of the SHA-256 ${bundleSha256}`)
    t.same(asked, Array(3).fill(`/workers/bundle.tgz Bearer ${token}-2`))
    t.match(console, `"MUSTER_WORKER_TOKEN":"${token}-3"`, 'a new one for each start of the worker')
    t.equal((await stat(join(machine.root, 'etc/muster/token.env'))).mode & 0o777, 0o600, 'it is for nobody else')
    t.notMatch(console, joinSecret, 'nobody is told the secret')
  },
)

t.test('the join secret may stand in the Parameter Store', async t => {
  if (spawnSync('aws', ['--version']).error !== undefined && !process.env.CI)
    return t.comment('the aws command is not installed (pip install awscli)')
  const { joined, url } = await startNodeServer(t)
  const put = ['ssm', 'put-parameter', '--name', '/muster/join', '--type', 'SecureString', '--value', joinSecret]
  const booted = await boot(
    t,
    [url],
    () => {
      // After the reset of the emulator.
      const env = { ...process.env, AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' }
      const where = ['--region', 'us-east-1', '--endpoint-url', moto.url]
      const { status, stderr } = spawnSync('aws', [...where, ...put], { env, encoding: 'utf8' })
      t.equal(status, 0, stderr)
    },
    { workerJoinParameter: '/muster/join' },
  )
  t.match(await booted.said(/^worker /m), `"MUSTER_WORKER_TOKEN":"${token}-`)
  t.match(joined[1], `Bearer ${joinSecret} {"instanceId":"${booted.id}","queue":"images"`)
})

t.test('a worker trusts the authority that its nodes trust', async t => {
  const authority = await makeAuthority(Date.now())
  const { certificate: cert, key } = await makeServerCertificate(authority, [], Date.now())
  const caFile = join(t.testdir(), 'ca.crt')
  await writeFile(caFile, authority.certificate)
  const { url } = await startNodeServer(t, [], { cert, key })
  const { machine, said } = await boot(t, [url], withSecret, { caFile })
  const console = await said(/^worker /m)
  const file = join(machine.root, 'etc/muster/ca.pem')
  t.match(console, `"MUSTER_CA_FILE":"${file}"`)
  t.equal(await readFile(file, 'utf8'), authority.certificate)
  await t.rejects(renderUserData({ ...settings, caFile: '/nonexistent' }, [url]), /MUSTER_CA_FILE cannot be read/)
})

t.test('an instance that may not read the secret powers off, and says so', async t => {
  const programs = { workerJoinParameter: '/muster/join' }
  const odd = await boot(
    t,
    ['http://127.0.0.1:9'],
    root => put(join(root, '../bin/aws'), '#!/bin/sh\necho AccessDenied >&2\nexit 254\n', 0o755),
    programs,
  )
  await until(() => odd.machine.state === 'gone')
  const said = await odd.provider.explainBoot(odd.id)
  t.match(said, /AccessDenied/)
  t.match(said, /cannot become a worker: no token to be had/)
})

t.test('the code may come from elsewhere, which gets no token', async t => {
  const { asked, url, bundleSha256 } = await startNodeServer(t)
  const { said } = await boot(t, [url], withSecret, { bundleUrl: `${url}/muster.tgz`, bundleSha256 })
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
