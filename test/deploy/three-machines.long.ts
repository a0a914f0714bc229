/**
 * Two nodes and a witness come up by their user data, as the stack starts them, and are replaced by empty machines one after
 * the other, as an update does it: with the real Redis, Sentinels, nodes and certificates, on loopback addresses.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Agent, request } from 'undici'
import { makeSecrets } from '../../src/redis-server/ha/secrets.ts'
import { type Machine, makeBundle, makeMachine } from '../support/boot/boot-machine.ts'
import { freePort } from '../support/free-port.ts'
import { until } from '../support/until.ts'

if (process.platform !== 'linux') {
  t.plan(0, 'only Linux has all of 127.0.0.0/8 on its loopback')
  process.exit(0)
}
// Some 30 s on a machine with nothing else to do.
const redisSecrets = await makeSecrets([], Date.now())
const operatorKey = 'operator-key-operator-key-operator-key'
const secrets = {
  'redis-AbCdEf': JSON.stringify(redisSecrets),
  'operator-AbCdEf': operatorKey,
  'join-AbCdEf': 'join-secret-join-secret-join-secret',
}
const parameters = { fleet: 'MUSTER_MAX_WORKERS=3\n' }
const arn = (name: string): string => `arn:aws:secretsmanager:eu-central-1:123456789012:secret:${name}`
const bundle = await makeBundle(t)
const ports = { a: await freePort(), b: await freePort() }
const agent = new Agent({ connect: { ca: redisSecrets.caCertificate } })
t.teardown(() => agent.destroy())

const shared = {
  ...{ STACK: 'm', BUNDLE: 's3://bundles/muster.tgz', AWS_REGION: 'eu-central-1', REDIS_MEMORY_MB: '64' },
  ...{ NODE_LOGS: 'n', REDIS_LOGS: 'r', BOOT_LOGS: 'b', REDIS_SECRET: arn('redis-AbCdEf') },
  BUNDLE_SHA256: createHash('sha256').update(readFileSync(bundle)).digest('hex'),
  HOSTS: 'a=127.0.62.1,b=127.0.62.2,c=127.0.62.3',
}
const nodeSettings = {
  ...{ ROLE: 'node', REDIS: 'nodes', REDIS_ADDRESS: '', CACHE_SECRET: '' },
  ...{ OPERATOR_SECRET: arn('operator-AbCdEf'), JOIN_SECRET: arn('join-AbCdEf') },
  FLEET_SETTINGS: 'fleet',
  ...{ MUSTER_FLEET: 'none', MUSTER_PAYLOAD_STORE: 'redis', MUSTER_SHUTDOWN_GRACE_MS: '100' },
  MUSTER_NODE_URLS: `https://127.0.0.1:${ports.a},https://127.0.0.1:${ports.b}`,
}

async function start(t: Test, host: 'a' | 'b' | 'c'): Promise<Machine> {
  const own = host === 'c' ? { ROLE: 'witness' } : { ...nodeSettings, API_PORT: `${ports[host]}` }
  const address = { a: '127.0.62.1', b: '127.0.62.2', c: '127.0.62.3' }[host]
  const settings = { ...shared, ...own, MACHINE: host, SIGNAL: host, ADDRESSES: address }
  const machine = await makeMachine(t, { settings, bundle, secrets, parameters, isAlive: true })
  t.teardown(() => end(machine))
  const { code, output } = await machine.boot({ MUSTER_BOOT_PAUSE: '0', MUSTER_BOOT_WAIT: '200' })
  t.equal(code, 0, code === 0 ? `${host} is up` : `${output}\n${logsOf(machine)}`)
  t.match(machine.calls().at(-1), `cfn-signal --success true`)
  return machine
}

const services = ['muster-node.service', 'muster-redis.service']

/** As a machine that is shut down: SIGTERM to its services, the node first. */
async function end(machine: Machine): Promise<void> {
  for (const service of services) {
    const pid = pidOf(machine, service)
    if (pid === undefined || !isAlive(pid)) continue
    process.kill(pid, 'SIGTERM')
    await until(() => !isAlive(pid)).catch(() => process.kill(-pid, 'SIGKILL'))
  }
}

function pidOf(machine: Machine, service: string): number | undefined {
  try {
    return Number(readFileSync(join(machine.state, `${service}.pid`), 'utf8'))
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const logsOf = (machine: Machine): string =>
  ['node', 'redis'].map(name => read(join(machine.root, `var/log/muster/${name}.log`))).join('\n')

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

async function call(host: 'a' | 'b', method: 'GET' | 'PUT', path: string, body = '', key = operatorKey) {
  const url = `https://127.0.0.1:${ports[host]}${path}`
  const headers = {
    authorization: `Bearer ${key}`,
    ...(method === 'PUT' && { 'content-type': 'application/octet-stream' }),
  }
  const reply = await request(url, { method, headers, dispatcher: agent, ...(method === 'PUT' && { body }) })
  return {
    status: reply.statusCode,
    headers: reply.headers,
    body: (await reply.body.json()) as Record<string, unknown>,
  }
}

t.test('from nothing to a deployment, and every machine replaced, without losing a job', async t => {
  const first = { c: await start(t, 'c'), a: await start(t, 'a') }
  const b = await start(t, 'b')

  const kept = await call('a', 'PUT', '/enqueue?iterations=1', 'hello')
  t.equal(kept.status, 200)
  t.equal(kept.headers['muster-durability'], 'replicated')
  const job = `/jobs/${kept.body['Work ID']}`
  t.equal((await call('b', 'GET', job)).status, 200, 'the other node has it')
  t.equal((await call('b', 'GET', job, '', 'another')).status, 401, 'and it is closed')

  await end(first.c)
  await start(t, 'c')
  t.equal((await call('a', 'GET', job)).status, 200)

  await end(first.a)
  await start(t, 'a')
  t.equal((await call('a', 'GET', job)).status, 200, 'from the copies that the others had')
  t.equal((await call('a', 'PUT', '/enqueue?iterations=1', 'again')).status, 200)
  for (const secret of [...Object.values(redisSecrets.passwords), operatorKey, secrets['join-AbCdEf']])
    for (const machine of [b, first.a, first.c]) t.notOk(logsOf(machine).includes(secret), 'no secret in a log')
})
