/** The boot of nodes and witness as a dry run: every line is run, with stubs for what would change this machine. */
import { createHash, X509Certificate } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { makeSecrets } from '../../src/redis-server/ha/secrets.ts'
import { type Machine, makeBundle, makeMachine } from '../support/boot/boot-machine.ts'

// Some 20 s on a machine with nothing else to do.
const arn = (name: string): string => `arn:aws:secretsmanager:eu-central-1:123456789012:secret:${name}`
const redisSecrets = await makeSecrets([], Date.now())
const secrets = {
  'redis-AbCdEf': JSON.stringify(redisSecrets),
  'operatorKey-1x2y-AbCdEf': 'operator-key-operator-key-operator-key',
  'workerJoinSecret-1x2y-AbCdEf': 'join-secret-join-secret-join-secret',
  'cacheToken-1x2y-AbCdEf': 'cache-token-cache-token-cache-token',
}
const bundle = await makeBundle(t, fileURLToPath(new URL('../support/boot/fake-muster.mjs', import.meta.url)))
const sha256 = createHash('sha256').update(readFileSync(bundle)).digest('hex')

const shared = {
  STACK: 'm',
  BUNDLE: 's3://bundles/muster.tgz',
  BUNDLE_SHA256: sha256,
  NODE_LOGS: 'm-nodeLogs-1',
  REDIS_LOGS: 'm-redisLogs-1',
  BOOT_LOGS: 'm-bootLogs-1',
  REDIS_SECRET: arn('redis-AbCdEf'),
  REDIS_MEMORY_MB: '256',
  // Loopback addresses of nobody's: no other machine answers.
  HOSTS: 'a=127.0.61.1,b=127.0.61.2,c=127.0.61.3',
  AWS_REGION: 'eu-central-1',
}
const nodeSettings = {
  ...shared,
  SIGNAL: 'nodeAGroup',
  ROLE: 'node',
  MACHINE: 'a',
  ADDRESSES: '127.0.61.1 203.0.113.7',
  API_PORT: '5000',
  REDIS: 'nodes',
  REDIS_ADDRESS: '',
  CACHE_SECRET: '',
  OPERATOR_SECRET: arn('operatorKey-1x2y-AbCdEf'),
  JOIN_SECRET: arn('workerJoinSecret-1x2y-AbCdEf'),
  FLEET_SETTINGS: 'CFN-fleetSettings-1',
  MUSTER_DEPLOYMENT: 'm',
  MUSTER_FLEET: 'ec2',
}
const witnessSettings = { ...shared, SIGNAL: 'witnessGroup', ROLE: 'witness', MACHINE: 'c' }

const parameters = { 'CFN-fleetSettings-1': 'MUSTER_MIN_WORKERS=0\nMUSTER_MAX_WORKERS=4\n' }
const makeNode = (t: Test, more: Record<string, string> = {}): Promise<Machine> =>
  makeMachine(t, { settings: { ...nodeSettings, ...more }, bundle, secrets, parameters })
const makeWitness = (t: Test, more: Record<string, string> = {}): Promise<Machine> =>
  makeMachine(t, { settings: { ...witnessSettings, ...more }, bundle, secrets })

const inSync = (host: string) => ({ host, redis: 'replica', isInSync: true, sentinelNames: 'a' })
const status = (machine: Machine, value: object): Promise<void> =>
  writeFile(join(machine.state, 'status.json'), JSON.stringify(value))
const modeOf = (machine: Machine, path: string): string => (statSync(join(machine.root, path)).mode & 0o777).toString(8)
const signals = (machine: Machine): string[] => machine.calls().filter(call => call.startsWith('cfn-signal'))
const started = (machine: Machine): string[] =>
  machine.calls().filter(call => /^systemctl (?:start|restart)/.test(call))

/** Every secret value, and every secret part of one. */
const values = [...Object.values(secrets), ...Object.values(redisSecrets.passwords), redisSecrets.caKey.slice(40, 80)]

t.test('a node: secrets, Redis server, certificate, settings, services, signal', async t => {
  const node = await makeNode(t)
  await status(node, { canFailOver: true, hosts: [inSync('a')] })
  const { code, output } = await node.boot()
  t.equal(code, 0, output)
  t.same(started(node), ['systemctl start muster-redis.service', 'systemctl start muster-node.service'])
  t.same(signals(node), [
    'cfn-signal --success true --reason the node is ready --stack m --resource nodeAGroup --region eu-central-1',
  ])
  const order = [
    'aws s3',
    'amazon-cloudwatch-agent-ctl',
    'muster redis init',
    'systemctl start muster-redis',
    'curl',
    'cfn',
  ]
  const at = order.map(start => node.calls().findIndex(call => call.startsWith(start)))
  t.same(
    at,
    at.toSorted((a, b) => a - b),
    'logs are shipped before anything may fail; the signal comes last',
  )

  t.equal(modeOf(node, 'etc/muster/operator-key'), '600')
  t.equal(modeOf(node, 'etc/muster/join-secret'), '600')
  t.equal(modeOf(node, 'etc/muster/node.env'), '600')
  t.equal(node.file('etc/muster/operator-key').trim(), secrets['operatorKey-1x2y-AbCdEf'])
  t.notOk(existsSync(join(node.root, 'run/muster')), 'what only the boot needs is gone')
  const environment = node.file('etc/muster/node.env')
  for (const line of [
    'MUSTER_FLEET=',
    'MUSTER_HOST=0.0.0.0',
    'MUSTER_PORT=5000',
    'MUSTER_TLS_CERT_FILE=/etc/muster/tls/api.crt',
    'MUSTER_WORKER_JOIN_PARAMETER=/aws/reference/secretsmanager/workerJoinSecret-1x2y\n',
    `MUSTER_REDIS_URL=rediss+sentinel://muster:${redisSecrets.passwords.muster}@x/y`,
    'AWS_REGION=',
    'MUSTER_FLEET_SETTINGS_FILE=/var/lib/muster/fleet/fleet.env\n',
  ])
    t.match(environment, line)
  t.notMatch(environment, /OPERATOR_SECRET|^STACK/m, 'settings of the machine are not those of the node')

  const certificate = new X509Certificate(node.file('etc/muster/tls/api.crt'))
  t.ok(certificate.checkIssued(new X509Certificate(node.file('etc/muster/tls/ca.crt'))))
  t.ok(certificate.verify(new X509Certificate(redisSecrets.caCertificate).publicKey))
  for (const address of ['127.0.61.1', '203.0.113.7', '127.0.0.1']) t.equal(certificate.checkIP(address), address)
  t.equal(modeOf(node, 'etc/muster/tls/api.key'), '640')
  t.same(
    (await readdir(join(node.root, 'etc/muster/tls'))).sort(),
    ['api.crt', 'api.key', 'ca.crt'],
    'not the key of the CA',
  )

  const agent = JSON.parse(node.file('etc/muster/cloudwatch-agent.json'))
  const collected: { file_path: string; log_group_name: string }[] = agent.logs.logs_collected.files.collect_list
  t.same(
    collected.map(({ file_path, log_group_name }) => [file_path, log_group_name]),
    [
      ['/var/log/muster/node.log', 'm-nodeLogs-1'],
      ['/var/log/muster/redis.log', 'm-redisLogs-1'],
      ['/var/log/cloud-init-output.log', 'm-bootLogs-1'],
    ],
  )
  for (const secret of values) {
    t.notOk(output.includes(secret), 'no secret is printed: this goes to a log')
    t.notOk(node.calls().join('\n').includes(secret), 'no secret is an argument: those can be seen')
  }
  t.match(node.file('etc/systemd/system/muster-node.service'), 'User=muster')
  t.match(node.file('etc/muster/redis.env'), `REDIS_FOLDER=${join(node.root, 'var/lib/muster/redis/a')}`)
})

t.test('the settings of the fleet come from the stack, and follow it', async t => {
  const node = await makeNode(t)
  await status(node, { canFailOver: true, hosts: [inSync('a')] })
  t.equal((await node.boot()).code, 0)
  t.equal(node.file('var/lib/muster/fleet/fleet.env'), parameters['CFN-fleetSettings-1'])
  t.ok(node.calls().includes(`chown -R muster:muster ${join(node.root, 'var/lib/muster/fleet')}`))
  t.ok(node.calls().includes('systemctl enable --now muster-fleet.timer'))
  t.match(node.file('etc/systemd/system/muster-fleet.service'), '/opt/muster/deploy/boot/refresh-fleet.sh')

  const parameter = join(node.state, 'parameters/CFN-fleetSettings-1')
  await writeFile(parameter, 'MUSTER_MAX_WORKERS=5\n')
  await rm(join(node.state, 'calls'))
  t.match(await node.run('refresh-fleet.sh'), { code: 0, output: '' })
  t.equal(node.file('var/lib/muster/fleet/fleet.env'), 'MUSTER_MAX_WORKERS=5\n')
  t.same(
    node.calls().filter(call => /systemctl|cfn-signal/.test(call)),
    [],
    'nothing is restarted, nobody is signalled',
  )

  await writeFile(parameter, 'MUSTER_MAX_WORKERS=bad\n')
  t.match(await node.run('refresh-fleet.sh'), {
    code: 1,
    output: /stay as they are: .* is refused: .*Invalid settings/,
  })
  await writeFile(join(node.state, 'ssm-fails'), '')
  t.match(await node.run('refresh-fleet.sh'), { code: 1, output: /CFN-fleetSettings-1 cannot be read/ })
  t.equal(node.calls().filter(call => call.startsWith('aws ssm')).length, 3, 'the next try comes in a minute')
  t.equal(node.file('var/lib/muster/fleet/fleet.env'), 'MUSTER_MAX_WORKERS=5\n')
})

t.test('a second run changes nothing, and restarts only what changed', async t => {
  const node = await makeNode(t)
  await status(node, { canFailOver: true, hosts: [inSync('a')] })
  t.equal((await node.boot()).code, 0)
  await rm(join(node.state, 'calls'))
  t.equal((await node.boot()).code, 0)
  t.same(started(node), ['systemctl start muster-redis.service', 'systemctl start muster-node.service'])
  t.same(
    node.calls().filter(call => call.startsWith('useradd')),
    [],
  )

  await rm(join(node.state, 'calls'))
  await writeFile(join(node.state, 'secrets/operatorKey-1x2y-AbCdEf'), 'another-operator-key-another-operator-key')
  t.equal((await node.boot()).code, 0)
  t.same(started(node), ['systemctl start muster-redis.service', 'systemctl restart muster-node.service'])
})

t.test('the witness: a Redis server, and nothing of a node', async t => {
  const witness = await makeWitness(t)
  await status(witness, { canFailOver: true, hosts: [inSync('c')] })
  const { code, output } = await witness.boot()
  t.equal(code, 0, output)
  t.same(started(witness), ['systemctl start muster-redis.service'])
  t.match(signals(witness), [/--success true .* --resource witnessGroup/])
  t.same(
    witness.calls().filter(call => call.includes('get-secret-value')).length,
    1,
    'it reads the secrets of Redis, and no other',
  )
  t.notOk(existsSync(join(witness.root, 'etc/muster/node.env')))
})

t.test('nobody signals before the own server counts', async t => {
  const server = createServer().listen(26_379, '127.0.61.2')
  t.teardown(() => server.close())
  for (const hosts of [
    [{ host: 'c', redis: 'replica', isInSync: false, sentinelNames: 'a' }],
    [{ host: 'c', redis: 'down', isInSync: false, sentinelNames: 'a' }],
    [inSync('b'), { host: 'c', redis: 'replica', isInSync: true }],
  ]) {
    const witness = await makeWitness(t)
    await status(witness, { canFailOver: true, hosts })
    t.equal((await witness.boot()).code, 1)
    t.match(signals(witness), [/--success false --reason this Redis server is not in sync/])
    t.equal(signals(witness).length, 1)
  }
  const alone = await makeWitness(t)
  await status(alone, { canFailOver: false, hosts: [inSync('c')] })
  t.equal((await alone.boot()).code, 1, 'nor while a failover could not happen')
})

t.test('the first machine of a new deployment is in sync with nobody, and does not wait for that', async t => {
  const witness = await makeWitness(t)
  const { code, output } = await witness.boot({ MUSTER_BOOT_WAIT: '200' })
  t.equal(code, 0, output)
  t.match(output, 'no other machine answers yet')
  const broken = await makeWitness(t)
  await writeFile(join(broken.state, 'redis-is-down'), '')
  t.equal((await broken.boot()).code, 1, 'but its own must run')
})

t.test('with ElastiCache there is no server, and its password is in one file only', async t => {
  const settings = {
    REDIS: 'elasticache',
    REDIS_ADDRESS: 'cache.example.com',
    CACHE_SECRET: arn('cacheToken-1x2y-AbCdEf'),
    HOSTS: '',
  }
  const node = await makeNode(t, settings)
  const { code, output } = await node.boot()
  t.equal(code, 0, output)
  t.same(started(node), ['systemctl start muster-node.service'])
  const token = secrets['cacheToken-1x2y-AbCdEf']
  t.match(node.file('etc/muster/node.env'), `MUSTER_REDIS_URL=rediss://:${token}@cache.example.com:6379\n`)
  t.notOk((output + node.calls().join('\n')).includes(token))
  t.notOk(existsSync(join(node.root, 'run/muster')))
})

t.test('what fails is told to the stack, once, with its reason', async t => {
  const cases: [string, Record<string, string>, (machine: Machine) => Promise<void>, RegExp][] = [
    ['another bundle', { BUNDLE_SHA256: '0'.repeat(64) }, async () => undefined, /is not the one that was deployed/],
    [
      'a secret that cannot be read',
      {},
      machine => rm(join(machine.state, 'secrets/operatorKey-1x2y-AbCdEf')),
      /the secret arn:\S+operatorKey-1x2y-AbCdEf cannot be read/,
    ],
    [
      'an empty secret',
      {},
      machine => writeFile(join(machine.state, 'secrets/operatorKey-1x2y-AbCdEf'), ''),
      /operatorKey-1x2y-AbCdEf is empty/,
    ],
    [
      'a secret that is none',
      {},
      machine => writeFile(join(machine.state, 'secrets/redis-AbCdEf'), 'nonsense-of-a-secret'),
      /line \d+ of \S+ failed/,
    ],
    [
      'settings of the fleet that no node would take',
      {},
      machine => writeFile(join(machine.state, 'parameters/CFN-fleetSettings-1'), 'bad'),
      /the parameter CFN-fleetSettings-1 is refused: muster: Invalid settings/,
    ],
    [
      'settings of the fleet that cannot be read',
      {},
      machine => rm(join(machine.state, 'parameters/CFN-fleetSettings-1')),
      /the parameter CFN-fleetSettings-1 cannot be read/,
    ],
    [
      'a node that does not become ready',
      {},
      machine => writeFile(join(machine.state, 'node-is-not-ready'), ''),
      /the node does not become ready/,
    ],
  ]
  for (const [what, settings, prepare, reason] of cases) {
    const node = await makeNode(t, settings)
    await prepare(node)
    const { code, output } = await node.boot()
    t.equal(code, 1, what)
    t.equal(signals(node).length, 1, `${what}: ${signals(node)}`)
    t.match(signals(node)[0], /--success false/)
    t.match(signals(node)[0], reason)
    t.notOk(output.includes('nonsense-of-a-secret'))
    t.notOk(existsSync(join(node.root, 'run/muster')), `${what}: nothing secret is left behind`)
  }
})

t.test('a fetch that fails is tried again', async t => {
  const node = await makeNode(t)
  await status(node, { canFailOver: true, hosts: [inSync('a')] })
  await writeFile(join(node.state, 's3-fails'), '')
  t.equal((await node.boot()).code, 0)
  t.equal(node.calls().filter(call => call.startsWith('aws s3')).length, 3)
})

t.test('on a stock image, Node.js and Valkey are installed', async t => {
  const node = await makeNode(t)
  await status(node, { canFailOver: true, hosts: [inSync('a')] })
  // A PATH without node and Redis.
  const tools = join(node.state, 'tools')
  await mkdir(tools)
  for (const tool of 'bash sh env mkdir cat printenv mktemp timeout sha256sum rm tar gzip chmod mv cmp grep sleep install openssl cp ln touch basename dirname cut'.split(
    ' ',
  )) {
    const found = ['/usr/bin', '/bin'].map(folder => join(folder, tool)).find(existsSync)
    if (found !== undefined) await symlink(found, join(tools, tool))
  }
  const { code, output } = await node.boot({ PATH: `${join(node.state, 'bin')}:${tools}`, STUB_NODE: process.execPath })
  t.equal(code, 0, output)
  const installed = node.calls().filter(call => call.startsWith('dnf'))
  t.same(
    new Set(installed),
    new Set(['dnf install -y nodejs24', 'dnf install -y nodejs22', 'dnf install -y nodejs20', 'dnf install -y valkey']),
  )
})
