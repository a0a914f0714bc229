/**
 * The EC2 fleet, end to end: nodes as a user starts them, EC2 as its emulator and the front before it have it, and machines
 * that boot real workers from the real user data. Linux only.
 */
import { execFile } from 'node:child_process'
import { mkdir, symlink } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import type { SimulatedInstance } from '../support/aws/simulated-instance.ts'
import { startSimulator } from '../support/aws/simulator.ts'
import { startAws } from '../support/aws/start-aws.ts'
import { cli, type NodeProcess, startNodeProcess } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
type Body = any

// Machines boot, work and go away in real time.
const { moto, front, ec2, createTemplate, subnetOf, allInstances } = await startAws(t)
const home = fileURLToPath(new URL('../../', import.meta.url))
/** Whether the image holds the code of the worker; else the user data gets it from a node. */
let hasCode = true
const simulator = await startSimulator(t, {
  front,
  pollMs: 100,
  graceMs: 3000,
  environment: { AWS_ENDPOINT_URL: moto.url, AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' },
  prepareDisk: async root => {
    if (!hasCode) return
    await mkdir(join(root, 'opt/muster'), { recursive: true })
    for (const name of ['dist', 'node_modules', 'package.json'])
      await symlink(join(home, name), join(root, 'opt/muster', name))
  },
})
t.beforeEach(async () => {
  await front.reset()
  await simulator.reset()
  await createTemplate()
  hasCode = true
})

const ec2Node = async (t: Test, more: Record<string, string> = {}): Promise<NodeProcess> =>
  await startNodeProcess(t, {
    AWS_ENDPOINT_URL: front.url,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
    MUSTER_FLEET: 'ec2',
    // Its machines are processes here: they call from another address than the emulator shows.
    MUSTER_WORKER_JOIN_PROOF: 'none',
    MUSTER_EC2_LAUNCH_TEMPLATE: 'worker',
    MUSTER_EC2_INSTANCE_TYPES: 'c5.large,m5.large',
    MUSTER_EC2_SUBNETS: `${await subnetOf('us-east-1a')},${await subnetOf('us-east-1b')}`,
    MUSTER_EC2_SPOT_PERCENT: '100',
    MUSTER_MAX_WORKERS: '3',
    MUSTER_WORKER_SLOTS: '1',
    MUSTER_AUTOSCALE_INTERVAL_MS: '300',
    MUSTER_TARGET_WAIT_MS: '2000',
    MUSTER_IDLE_TIMEOUT_MS: '2000',
    // No worker is lost for being slow.
    MUSTER_LEASE_MS: '60000',
    ...more,
  })

const get = async (node: NodeProcess, path: string): Promise<Body> => await (await fetch(node.url + path)).json()
const sleep = async (node: NodeProcess, ms: number): Promise<string> => {
  const headers = { 'content-type': 'application/json' }
  const body = JSON.stringify({ payload: { ms } })
  const reply = await fetch(`${node.url}/enqueue?type=sleep`, { method: 'PUT', headers, body })
  return ((await reply.json()) as Body)['Work ID']
}
const submit = async (node: NodeProcess, count: number, ms: number): Promise<string[]> =>
  await Promise.all(Array.from({ length: count }, () => sleep(node, ms)))

/** Pulls until all are there. @param look runs between two pulls. @returns the Work IDs that came */
const collect = async (
  node: NodeProcess,
  count: number,
  look: () => Promise<void> = async () => undefined,
): Promise<string[]> => {
  const seen: string[] = []
  await until(async () => {
    await look()
    const reply = await fetch(`${node.url}/pullCompleted?top=100&waitMs=1000`, { method: 'POST' })
    seen.push(...((await reply.json()) as Body[]).map(entry => entry['Work ID']))
    return seen.length >= count
  })
  return seen
}
const readyOf = async (node: NodeProcess): Promise<string[]> =>
  (await get(node, '/fleet')).pools[0].instances
    .filter(({ state }: Body) => state === 'ready')
    .map(({ instanceId }: Body) => instanceId)
const liveCount = async (): Promise<number> =>
  (await allInstances()).filter(({ State }) => State?.Name === 'running' || State?.Name === 'pending').length
const entriesOf = async (node: NodeProcess): Promise<Body[]> =>
  (await get(node, '/fleet/decisions?limit=200')).decisions
const actionsOf = async (node: NodeProcess): Promise<string[]> =>
  (await entriesOf(node)).flatMap(({ actions }) => actions.map(({ kind, reason }: Body) => `${kind} ${reason}`))
/** All calls that launch, and all that EC2 ever launched. */
const launchCalls = () => front.calls.filter(({ action }) => action === 'CreateFleet' || action === 'RunInstances')
const consolesOf = (machines: readonly SimulatedInstance[]): string =>
  machines.map(machine => `--- ${machine.id}\n${machine.console()}`).join('\n')

t.test('from zero to N and back to zero, with code from the node and an EC2 that shows things late or not', async t => {
  hasCode = false
  front.newInstances.hiddenMs = 1000
  front.newInstances.hides = () => Date.now() % 4000 < 1000
  const node = await ec2Node(t)
  const explained = async <T>(work: Promise<T>): Promise<T> =>
    await work.catch(async error => {
      const entries = await entriesOf(node).catch(() => [])
      const decisions = entries.map(({ at, explanation }) => `${new Date(at).toISOString()} ${explanation}`)
      throw new Error([error, ...decisions, consolesOf(simulator.instances())].join('\n'))
    })
  const workIds = await submit(node, 24, 400)
  let mostLive = 0
  const seen = await explained(
    collect(node, 24, async () => {
      const live = simulator.instances().filter(({ state }) => state === 'waiting' || state === 'booted')
      mostLive = Math.max(mostLive, live.length)
    }),
  )
  t.strictSame(seen.toSorted(), workIds.toSorted())
  front.newInstances.clear()
  const instances = await allInstances()
  t.ok(instances.length >= 2, `${instances.length} instances for 24 jobs of 0.4 s`)
  t.ok(mostLive <= 3, `${mostLive} at once`)
  t.ok(instances.every(({ InstanceLifecycle }) => InstanceLifecycle === 'spot'))
  await explained(until(async () => (await liveCount()) === 0))
  t.equal((await allInstances()).length, instances.length, 'nobody was launched again')
  const actions = await actionsOf(node)
  t.ok(actions.includes('drain idle'))
  t.notOk(actions.some(action => /lost-worker|boot-timeout/.test(action)))
  const { bootMs } = (await entriesOf(node))[0].inputs
  t.ok(bootMs > 0, `a boot was measured to take ${bootMs} ms`)

  const [decision] = (await entriesOf(node)).filter(({ actions }) =>
    actions.some(({ kind }: Body) => kind === 'launch'),
  )
  const run = async (...args: string[]) =>
    (await promisify(execFile)(process.execPath, [cli, 'fleet', 'explain', ...args, '--url', node.url])).stdout
  t.match(await run(), /default: the latest decision[\s\S]*replayed: same decision\n$/)
  t.match(
    await run(decision.id),
    new RegExp(`launch \\d: [\\s\\S]*, as ${decision.decisionId}\nreplayed: same decision\n$`),
  )
})

t.test('a third is taken away under load: replaced at the notice, no attempt spent, no job lost', async t => {
  // The floor has the victim replaced, however little is left to do by then.
  const node = await ec2Node(t, { MUSTER_MIN_WORKERS: '3', MUSTER_IDLE_TIMEOUT_MS: '60000' })
  const workIds = await submit(node, 27, 1200)
  await until(async () => (await readyOf(node)).length === 3)
  const launched = (await allInstances()).length
  const [victim = ''] = await readyOf(node)
  const bootOf = async (): Promise<Body> =>
    (await get(node, '/fleet')).pools[0].instances.find(({ instanceId }: Body) => instanceId === victim)?.boot
  await until(async () => (await bootOf())?.firstClaimAt !== undefined)
  t.match(await bootOf(), { userDataAt: /Z$/, installedAt: /Z$/, stages: { installedMs: Number } })
  simulator.interrupt(victim, 14_000)
  await until(async () => (await actionsOf(node)).includes('launch interrupted'))
  const { instances } = (await get(node, '/fleet')).pools[0]
  t.match(
    instances.find(({ instanceId }: Body) => instanceId === victim),
    { state: 'draining', interruption: { kind: 'interruption' }, market: 'spot' },
  )
  await until(async () => (await allInstances()).length > launched)
  t.pass('above the ceiling of three, for as long as it is there')
  const seen = await collect(node, 27)
  t.strictSame(seen.toSorted(), workIds.toSorted(), 'each once')
  const jobs = await Promise.all(workIds.map(workId => get(node, `/jobs/${workId}`)))
  t.ok(jobs.every(({ attemptsMade }) => attemptsMade === 1))
  t.equal((await get(node, '/status')).Dead, 0)
  await until(() => simulator.get(victim).state === 'gone')
})

t.test('no room anywhere but in one pool', async t => {
  front.capacity.set({}, 0)
  front.capacity.set({ type: 'm5.large', zone: 'us-east-1b', market: 'on-demand' }, Number.POSITIVE_INFINITY)
  const node = await ec2Node(t)
  await submit(node, 6, 300)
  await collect(node, 6)
  const instances = await allInstances()
  t.ok(instances.length > 0)
  for (const { InstanceType, Placement, InstanceLifecycle } of instances)
    t.strictSame(
      [InstanceType, Placement?.AvailabilityZone, InstanceLifecycle ?? 'on-demand'],
      ['m5.large', 'us-east-1b', 'on-demand'],
    )
})

t.test('an instance that never boots is ended, and what it said is in the journal', async t => {
  // The code of the worker never comes: whoever is asked for it does not answer.
  hasCode = false
  const silent = createServer(() => undefined).listen(0, '127.0.0.1')
  await new Promise(resolve => silent.once('listening', resolve))
  t.teardown(() => {
    silent.closeAllConnections()
    silent.close()
  })
  const node = await ec2Node(t, {
    MUSTER_BUNDLE_URL: `http://127.0.0.1:${(silent.address() as AddressInfo).port}/`,
    MUSTER_BUNDLE_SHA256: '0'.repeat(64),
    MUSTER_BOOT_TIMEOUT_MS: '20000',
    MUSTER_MAX_WORKERS: '1',
  })
  await submit(node, 1, 10)
  await until(async () => (await actionsOf(node)).includes('terminate boot-timeout'))
  const [entry] = (await entriesOf(node)).filter(({ actions }) => actions[0]?.reason === 'boot-timeout')
  const { instanceId } = entry.actions[0]
  t.match(entry.evidence?.[instanceId], new RegExp(`muster: instance ${instanceId} becomes a worker of queue default`))
  await until(() => simulator.get(instanceId).state === 'gone')
  await until(async () => /launches failed in a row/.test((await get(node, '/fleet')).pools[0].explanation))
})

t.test('replies that are lost after the launch: launched once', async t => {
  const node = await ec2Node(t, { MUSTER_MAX_WORKERS: '2', MUSTER_IDLE_TIMEOUT_MS: '60000' })
  front.newInstances.hiddenMs = 1500
  const fault = front.fail({ action: 'CreateFleet', times: 2, error: 'lose-reply' })
  await submit(node, 12, 300)
  await collect(node, 12)
  t.equal(fault.hits + launchCalls().filter(({ outcome }) => outcome === 'ok').length, launchCalls().length)
  t.ok(fault.hits >= 1)
  t.equal((await allInstances()).length, 2)
  t.equal(await liveCount(), 2)
})

t.test('closed: instances join with the secret that they read from the Parameter Store', async t => {
  hasCode = false
  const joinSecret = `join-${'j'.repeat(32)}`
  const operatorKey = `operator-${'k'.repeat(32)}`
  const parameter = ['--name', '/muster/join', '--type', 'SecureString', '--value', joinSecret]
  const env = { ...process.env, AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' }
  const where = ['--region', 'us-east-1', '--endpoint-url', moto.url]
  await promisify(execFile)('aws', [...where, 'ssm', 'put-parameter', ...parameter], { env })
  const node = await ec2Node(t, {
    MUSTER_OPERATOR_KEY: operatorKey,
    MUSTER_WORKER_JOIN_SECRET: joinSecret,
    MUSTER_WORKER_JOIN_PARAMETER: '/muster/join',
    // Heartbeats come more often than tokens run out.
    MUSTER_LEASE_MS: '4000',
    MUSTER_WORKER_TOKEN_TTL_MS: '10000',
    MUSTER_WORKER_TOKEN: 'of-the-node-alone',
    MUSTER_MAX_WORKERS: '1',
    MUSTER_IDLE_TIMEOUT_MS: '3000',
  })
  const headers = { authorization: `Bearer ${operatorKey}`, 'content-type': 'application/json' }
  const ask = async (method: string, path: string, body?: unknown): Promise<Body> =>
    await (
      await fetch(node.url + path, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) })
    ).json()
  // Longer than a first token is good for: heartbeats renew it.
  await ask('PUT', '/enqueue?type=sleep', { payload: { ms: 13_000 } })
  const values: unknown[] = []
  await until(async () => {
    values.push(...(await ask('POST', '/pullCompleted?top=1&waitMs=2000')))
    return values.length === 1
  }).catch(error => {
    throw new Error(`${error}\n${consolesOf(simulator.instances())}\n${node.output()}`)
  })
  const { LaunchTemplateVersions = [] } = await ec2.describeLaunchTemplateVersions({
    LaunchTemplateName: 'worker',
    Versions: ['$Default', '$Latest'],
  })
  const userData = LaunchTemplateVersions.map(({ LaunchTemplateData }) =>
    Buffer.from(LaunchTemplateData?.UserData ?? '', 'base64').toString(),
  ).join('\n')
  t.match(userData, '/muster/join')
  for (const secret of [joinSecret, operatorKey, 'of-the-node-alone', 'mwt.'])
    for (const [place, text] of Object.entries({
      userData,
      log: node.output(),
      consoles: consolesOf(simulator.instances()),
    }))
      t.notOk(text.includes(secret), `no secret in ${place}`)
  t.equal((await fetch(`${node.url}/fleet`)).status, 401)
  await until(async () => (await liveCount()) === 0)
})

t.test('two nodes launch once; both killed: the fleet is gone soon after', async t => {
  const redis = await startTestRedis(t, { tcp: true, appendOnly: true })
  const both = {
    MUSTER_REDIS_URL: redis.url ?? '',
    MUSTER_LEASE_MS: '4000',
    MUSTER_WORKER_ORPHAN_MS: '3000',
    MUSTER_MAX_WORKERS: '2',
  }
  const first = await ec2Node(t, both)
  const second = await ec2Node(t, { ...both, MUSTER_IDLE_TIMEOUT_MS: '60000' })
  const workIds = await submit(first, 80, 500)
  await until(async () => (await readyOf(second)).length === 2)
  first.kill('SIGKILL')
  await first.ended()
  const before = (await get(second, '/status')).Jobs
  t.ok(before > 0, 'work is left')
  const seen = await collect(second, 20)
  t.ok(seen.every(workId => workIds.includes(workId)))
  // Those of the first node's user data know only the first: they are gone, and others came.
  t.ok((await liveCount()) >= 1)
  second.kill('SIGKILL')
  await second.ended()
  await until(async () => (await liveCount()) === 0)
  t.strictSame(simulator.running(), [])
})

t.test('a storm: a third is noticed every 10 s; no attempt is spent, no job lost or doubled', async t => {
  // The floor has each victim replaced, however little is left to do by then.
  const node = await ec2Node(t, { MUSTER_IDLE_TIMEOUT_MS: '60000', MUSTER_MIN_WORKERS: '3' })
  const workIds = await submit(node, 75, 1200)
  const collected = collect(node, 75)
  for (let round = 0; round < 3; round += 1) {
    await until(async () => (await readyOf(node)).length >= 3)
    const noticedAt = Date.now()
    const [victim = ''] = await readyOf(node)
    simulator.interrupt(victim, 13_000)
    // The storm keeps its pace, whatever the fleet does meanwhile.
    await until(() => Date.now() >= noticedAt + 10_000)
  }
  t.strictSame((await collected).toSorted(), workIds.toSorted(), 'each once')
  const jobs = await Promise.all(workIds.map(workId => get(node, `/jobs/${workId}`)))
  t.ok(jobs.every(({ attemptsMade, lostLeases }) => attemptsMade === 1 && lostLeases === 0))
  t.equal((await actionsOf(node)).filter(action => action === 'launch interrupted').length, 3)
  t.equal((await get(node, '/status')).Dead, 0)
})

t.test('90 % of the calls are throttled: the fleet comes, works and goes, only slower', async t => {
  const node = await ec2Node(t, { MUSTER_MAX_WORKERS: '1' })
  const fault = front.fail({ action: '*', rate: 0.9, error: { status: 503, code: 'RequestLimitExceeded' } })
  const workIds = await submit(node, 4, 200)
  const seen = await collect(node, 4)
  t.strictSame(seen.toSorted(), workIds.toSorted())
  await until(async () => (await liveCountOf()) === 0)
  t.ok(fault.hits > 0)
  front.clearFaults()
  t.equal((await allInstances()).length, 1, 'launched once')
})

/** As EC2 itself knows it, whatever is throttled for others. */
const liveCountOf = async (): Promise<number> => simulator.running().length
