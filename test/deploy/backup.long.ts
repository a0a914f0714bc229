/**
 * A Redis with jobs in all states, backed up to the emulated S3 by `muster redis backup`, and restored into an empty one: that
 * of a node, and three copies with TLS and users. A node on it has every job, result, lease and key, and goes on with them.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import t from 'tap'
import { ask } from '../../src/redis-server/ha/probe.ts'
import { startMoto } from '../support/aws/moto.ts'
import { cli, type NodeProcess, startNodeProcess } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { makeGroup } from '../support/redis-group.ts'
import { type Body, get, put, stateOf } from '../support/two-nodes.ts'
import { patienceMs, until } from '../support/until.ts'

const moto = await startMoto(t)
const region = 'eu-central-1'
const credentials = { accessKeyId: 'test', secretAccessKey: 'test' }
const s3 = new S3Client({ region, endpoint: moto.url, forcePathStyle: true, credentials })
t.teardown(() => s3.destroy())
await s3.send(new CreateBucketCommand({ Bucket: 'backups', CreateBucketConfiguration: { LocationConstraint: region } }))
const place = 's3://backups/redis'
const work = await mkdtemp(join(tmpdir(), 'muster-restored-'))
t.teardown(() => rm(work, { recursive: true, force: true }))
const run = promisify(execFile)

async function muster(env: Record<string, string>, ...args: string[]): Promise<{ code: number; said: string }> {
  const aws = {
    AWS_REGION: region,
    AWS_ENDPOINT_URL: moto.url,
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  }
  const options = {
    env: { PATH: process.env.PATH, MUSTER_CONFIG_FILE: '/nonexistent', ...aws, ...env },
    timeout: patienceMs,
  }
  return await run(process.execPath, [cli, 'redis', ...args], options).then(
    ({ stdout, stderr }) => ({ code: 0, said: stdout + stderr }),
    ({ code, stdout, stderr }) => ({ code, said: stdout + stderr }),
  )
}

let secret: string | undefined
const plainFetch = globalThis.fetch
globalThis.fetch = (url, options = {}) => {
  const headers = new Headers(options.headers)
  if (secret !== undefined) headers.set('authorization', `Bearer ${secret}`)
  return plainFetch(url, { ...options, headers })
}
t.teardown(() => {
  globalThis.fetch = plainFetch
})

const redis = await startTestRedis(t, { tcp: true })
const source = { MUSTER_REDIS_URL: redis.url as string }
const shared = { MUSTER_FLEET: 'none', MUSTER_PAYLOAD_STORE: 'redis', MUSTER_LEASE_MS: '120000' }
const post = async (url: string, body?: unknown): Promise<Body> => {
  const json = { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body ?? {}) }
  return await (await fetch(url, { method: 'POST', ...(body !== undefined && json) })).json()
}
/** A worker that claims by hand. */
const hand = async (node: NodeProcess): Promise<void> => {
  const worker = { workerId: 'hand', queue: 'default', slots: 1, types: ['by-hand'] }
  await post(`${node.url}/workers/heartbeat`, { worker, state: 'ready', leases: [] })
}
const claim = async (node: NodeProcess): Promise<Body> => {
  const reply = await post(`${node.url}/workers/claim`, { workerId: 'hand', queue: 'default', max: 1, waitMs: 5000 })
  return reply.jobs?.[0] ?? Promise.reject(new Error(JSON.stringify(reply)))
}
const complete = async (node: NodeProcess, { workId, token }: Body, outcome: object): Promise<string> => {
  const results = [{ workId, token, type: 'by-hand', durationMs: 1, ...outcome }]
  const reply = await post(`${node.url}/workers/complete`, { workerId: 'hand', queue: 'default', results })
  return reply.results?.[0]?.outcome ?? JSON.stringify(reply)
}
const byHand = (node: NodeProcess): Promise<string> => put(node, 'type=by-hand')
const hash = async (node: NodeProcess, query: string, data: string): Promise<string> => {
  const headers = { 'content-type': 'application/octet-stream' }
  const reply = await fetch(`${node.url}/enqueue?iterations=1&${query}`, { method: 'PUT', headers, body: data })
  return ((await reply.json()) as Body)['Work ID']
}
const sha512 = (data: string): string => createHash('sha512').update(data).digest('hex')
const large = 'x'.repeat(200_000)
const jobs: Record<string, string> = {}
let running: Body
let leaseId: string

async function describe(node: NodeProcess): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {}
  for (const [what, workId] of Object.entries(jobs)) found[what] = await stateOf(node, workId)
  const { Jobs } = await get(`${node.url}/status`)
  return { ...found, Jobs, keys: await get(`${node.url}/keys`) }
}

let before: Record<string, unknown>
t.test('jobs in all states go to S3 while a node serves', async t => {
  const node = await startNodeProcess(t, { ...shared, ...source })
  // From the first key on, a node lets nobody in without one; a worker belongs to the key that it came with.
  secret = (
    await post(`${node.url}/keys`, { name: 'restored', roles: ['operate', 'submit', 'collect', 'read', 'work'] })
  ).key
  await hand(node)
  for (const what of ['collected', 'leased', 'uncollected', 'dead'] as const) {
    jobs[what] = await byHand(node)
    const isDead = what === 'dead'
    const outcome = isDead ? { error: { code: 'x', message: 'no', retryable: false } } : { value: { json: what } }
    t.equal(await complete(node, await claim(node), outcome), isDead ? 'dead' : 'succeeded')
    if (what === 'collected') t.match(await post(`${node.url}/pullCompleted?top=1`), [{ 'Work ID': jobs.collected }])
    if (what !== 'leased') continue
    const reply = await fetch(`${node.url}/pullCompleted?top=1&leaseMs=600000`, { method: 'POST' })
    t.match(await reply.json(), [{ 'Work ID': jobs.leased }])
    leaseId = reply.headers.get('muster-lease-id') ?? ''
  }
  jobs.running = await byHand(node)
  await hand(node)
  running = await claim(node)
  t.equal(running.workId, jobs.running)
  jobs.waiting = await hash(node, '', 'waiting')
  jobs.large = await hash(node, '', large)
  jobs.urgent = await hash(node, 'priority=1', 'urgent')
  jobs.delayed = await hash(node, 'delayMs=3600000', 'delayed')
  before = await describe(node)
  const states = Object.keys(jobs).map(what => [what, (before[what] as Body).state])
  t.match(Object.fromEntries(states), { collected: 'succeeded', dead: 'dead', running: 'running', delayed: 'delayed' })

  const { code, said } = await muster(source, 'backup', '--to', place)
  t.equal(code, 0, said)
  t.match(said, /^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ-muster-\d+\.\d+\.\d+: \d+ keys, \d+ bytes\.\n$/)
  const again = await muster(source, 'backup', '--to', place, '--unless-newer-than', '60')
  t.match(again.said, 'recent enough')
  t.equal((await muster({}, 'backups', '--from', place)).said, `${said.split(':')[0]}\n`)
})

t.test('into the Redis of a node, which goes on', async t => {
  const target = { MUSTER_DATA_DIR: join(work, 'node') }
  const { code, said } = await muster(target, 'restore', '--from', place)
  t.equal(code, 0, said)
  t.match(said, /: \d+ keys restored/)
  const twice = await muster(target, 'restore', '--from', place)
  t.equal(twice.code, 1)
  t.match(twice.said, /This Redis holds \d+ keys, and nothing was changed\. --replace/)

  const workers = { MUSTER_FLEET: 'local', MUSTER_MIN_WORKERS: '2', MUSTER_MAX_WORKERS: '3' }
  const node = await startNodeProcess(t, { ...shared, ...workers, ...target })
  t.match((await muster(target, 'restore', '--from', place, '--replace')).said, 'Another node')
  t.equal((await plainFetch(`${node.url}/status`)).status, 401, 'it lets nobody in without a key')
  const after = await describe(node)
  for (const [what, was] of Object.entries(before))
    if (!['waiting', 'large', 'urgent', 'Jobs'].includes(what)) t.same(after[what], was, what)
  t.match(await get(`${node.url}/jobs/${jobs.collected}/result`), { value: 'collected' })
  await hand(node)
  t.equal(await complete(node, running, { value: { json: 'by hand' } }), 'succeeded', 'a lease holds over it')
  for (const what of ['waiting', 'large', 'urgent'])
    await until(async () => (await stateOf(node, jobs[what] as string)).state === 'succeeded').catch(async error => {
      throw new Error(
        `${what}: ${(error as Error).message}\n${JSON.stringify(await get(`${node.url}/fleet`))}\n${node.output().slice(-1500)}`,
      )
    })
  const pulled: Body[] = await post(`${node.url}/pullCompleted?top=100`)
  const values = new Map(pulled.map(one => [one['Work ID'], one.Value]))
  t.equal(values.get(jobs.uncollected), 'uncollected')
  t.equal(values.get(jobs.running), 'by hand')
  for (const [what, data] of Object.entries({ waiting: 'waiting', urgent: 'urgent', large }))
    t.equal(values.get(jobs[what]), sha512(data), what)
  t.notOk(values.has(jobs.leased), 'what somebody has leased is not handed out')
  t.notOk(values.has(jobs.collected), 'nor what was collected')
  t.match(await post(`${node.url}/pullCompleted/ack`, { leaseId }), { acked: 1 }, 'and can be acked')
})

t.test('into three copies with TLS and users, and out of a replica of theirs', async t => {
  const group = await makeGroup(t)
  const dir = join(group.folder, 'a')
  t.match((await muster({}, 'restore', '--from', place, '--dir', dir)).said, 'Redis servers are not well')
  for (const host of group.hosts) host.start()
  const primary = await group.untilWhole()
  const first = await muster({}, 'restore', '--from', place, '--dir', dir)
  t.equal(first.code, 0, first.said)
  /** Keys that stay: others, such as leases, may run out meanwhile. */
  const count = async (host: string, user: 'operator' | 'muster' = 'operator'): Promise<number> => {
    const info = await ask(group.target('redis', host, user), 5000, client => client.info('keyspace'))
    const [, keys, expires] = /keys=(\d+),expires=(\d+)/.exec(info) ?? []
    return Number(keys) - Number(expires)
  }
  const all = await count(primary)
  t.ok(all > 20, `${all} keys`)
  for (const { name } of group.hosts) await until(async () => (await count(name)) === all)
  t.match((await muster({}, 'restore', '--from', place, '--dir', dir)).said, /holds \d+ keys, and nothing was changed/)
  t.equal((await muster({}, 'restore', '--from', place, '--dir', dir, '--replace')).code, 0)
  t.equal(await count(primary), all)

  const backup = await muster({}, 'backup', '--to', 's3://backups/copies', '--dir', dir)
  t.equal(backup.code, 0, backup.said)
  t.ok(Number(/: (\d+) keys/.exec(backup.said)?.[1]) >= all, backup.said)
  t.equal(await count(primary, 'muster'), all)
  for (const password of Object.values(group.secrets.passwords)) t.notOk((first.said + backup.said).includes(password))
})

t.test('a damaged one, a place that is none, a Redis in use: nothing is changed', async t => {
  const [name = ''] = (await muster({}, 'backups', '--from', place)).said.trim().split('\n')
  const Key = `redis/${name}.rdb`
  const whole = await s3.send(new GetObjectCommand({ Bucket: 'backups', Key }))
  const bytes = Buffer.from((await whole.Body?.transformToByteArray()) ?? [])
  bytes.writeUInt8(bytes.readUInt8(200) ^ 1, 200)
  await s3.send(new PutObjectCommand({ Bucket: 'backups', Key, Body: bytes }))
  const empty = { MUSTER_DATA_DIR: join(work, 'empty') }
  const damaged = await muster(empty, 'restore', '--from', place)
  t.equal(damaged.code, 1)
  t.match(damaged.said, 'is damaged: its SHA-256')
  await s3.send(new PutObjectCommand({ Bucket: 'backups', Key, Body: bytes.subarray(0, 500) }))
  t.match((await muster(empty, 'restore', '--from', place)).said, 'is damaged: it has 500 bytes')
  t.match((await muster(empty, 'restore', '--from', 's3://backups/none')).said, 'There is no backup')
  t.match((await muster(empty, 'restore', '--from', place, '--backup', 'never')).said, 'There is no such backup')
  t.match((await muster(empty, 'backup', '--to', place)).said, 'was not ready within')
  t.match((await muster(source, 'backup', '--to', 's3://no-such-bucket/x')).said, 's3:PutObject: NoSuchBucket')
  t.match((await muster(source, 'backup', '--to', '/tmp')).said, 's3://bucket/prefix')

  const client = await redis.client()
  await client.set('{muster}:mine', 'kept')
  const busy = await muster(source, 'restore', '--from', 's3://backups/copies', '--replace')
  t.match(busy.said, /1 other connections are open/)
  t.equal(await client.get('{muster}:mine'), 'kept')
})
