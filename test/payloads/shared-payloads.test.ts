/** Payloads and results over the inline limit, with nodes that share nothing but their Redis, or a folder. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openPayloadStore } from '../../src/payloads/open-payload-store.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { startApiOn, type TestApi } from '../support/api.ts'
import { startTestRedis } from '../support/redis.ts'

const mebibyte = 1024 * 1024
const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')
const octets = { 'content-type': 'application/octet-stream' }

async function startPair(t: Test, environment: Record<string, string>): Promise<[TestApi, TestApi]> {
  const server = await startTestRedis(t)
  return [await startApiOn(t, server, environment), await startApiOn(t, server, environment)]
}

/** Through node A comes the job, through B it is worked on, and A hands out the result. */
async function passAround(t: Test, [a, b]: [TestApi, TestApi]): Promise<string> {
  const payload = randomBytes(mebibyte)
  const value = randomBytes(mebibyte + 1)
  const enqueued = await a.call('PUT', '/enqueue?iterations=1', { headers: octets, body: payload })
  t.equal(enqueued.status, 200)
  const workId = enqueued.body['Work ID']
  const worker = b.worker()
  await worker.heartbeat()
  const [lease] = await worker.claim()
  if (lease === undefined || !('blob' in lease.payload)) throw new Error('no blob was leased')
  t.equal(lease.payload.blob.sha256, sha256(payload))
  const fetched = await b.call('GET', lease.payload.blob.url)
  t.ok(fetched.body.equals(payload), 'the worker has the payload from the other node')
  const path = `/workers/results/${workId}?token=${encodeURIComponent(lease.token)}&kind=bytes`
  const uploaded = await b.call('PUT', path, { headers: octets, body: value })
  t.equal(uploaded.status, 200)
  await worker.complete(lease, { value: uploaded.body.value })
  const pulled = await a.call('POST', '/pullCompleted?top=1')
  t.match(pulled.body, [{ 'Work ID': workId, Value: null, 'Value Bytes': value.byteLength }])
  const result = await a.call('GET', pulled.body[0]['Value URL'])
  t.ok(result.body.equals(value), 'the result comes from the first')
  return workId
}

t.test('two nodes that share a Redis: payloads in it', async t => {
  const pair = await startPair(t, { MUSTER_PAYLOAD_STORE: 'redis' })
  const [a, b] = pair
  const workId = await passAround(t, pair)
  const keys = async (): Promise<string[]> => {
    const all: string[] = []
    for await (const key of b.store.list(0, Date.now() + 1000)) all.push(key)
    return all
  }
  t.equal((await keys()).length, 2)
  const inTwoHours = Date.now() + 7_200_000
  t.equal(await b.jobs.retention.sweepBlobs(inTwoHours), 0, 'both belong to a job')
  await a.redis.del(a.jobs.of('default').queue.jobKey(workId))
  t.equal(await b.jobs.retention.sweepBlobs(inTwoHours), 2, 'the sweep of any node finds what belongs to none')
  t.same(await keys(), [])

  const big = await a.call('PUT', '/enqueue?iterations=1', { headers: octets, body: Buffer.alloc(64 * mebibyte + 1) })
  t.match(big, {
    status: 413,
    body: { code: 'body_too_large', detail: /67108864/, action: /payloads are kept in Redis/ },
  })
  t.same(await keys(), [], 'and nothing of it is left')
})

t.test('two nodes that share a folder', async t => {
  const folder = join(t.testdir(), 'shared')
  const environment = { MUSTER_PAYLOAD_STORE: `folder:${folder}` }
  const settings = readSettings({ MUSTER_CONFIG_FILE: '/nonexistent', ...environment })
  const unused = { connect: undefined as never, writes: undefined as never, log: { warn: () => undefined } }
  const absent = openPayloadStore({ settings, ...unused })
  await t.rejects(absent, { name: 'StartupError', message: /cannot be used \(ENOENT\)/ }, 'it is never made here')
  await mkdir(folder)
  await passAround(t, await startPair(t, environment))
})

t.test('two nodes with a folder each would not do', async t => {
  const [a, b] = await startPair(t, {})
  await a.call('PUT', '/enqueue?iterations=1', { headers: octets, body: randomBytes(mebibyte) })
  const worker = b.worker()
  await worker.heartbeat()
  const [lease] = await worker.claim()
  if (lease === undefined || !('blob' in lease.payload)) throw new Error('no blob was leased')
  t.equal((await b.call('GET', lease.payload.blob.url)).status, 404)
})

t.test('what MUSTER_PAYLOAD_STORE may be', async t => {
  const read = (environment: Record<string, string>) =>
    readSettings({ MUSTER_CONFIG_FILE: '/nonexistent', ...environment })
  const faultOf = (environment: Record<string, string>): string => {
    try {
      read(environment)
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  t.match(read({}), { payloadStore: 'folder', maxBodyBytes: 1024 * mebibyte })
  t.match(read({ MUSTER_REDIS_URL: 'redis://a' }), { payloadStore: 'folder' })
  const shared = { payloadStore: 'redis', maxBodyBytes: 64 * mebibyte }
  t.match(read({ MUSTER_REDIS_URL: 'redis+sentinel://a,b,c/muster' }), shared)
  t.match(read({ MUSTER_REDIS_URL: 'redis+cluster://a,b,c' }), shared)
  const s3 = { MUSTER_PAYLOAD_STORE: 's3://some-bucket/a/b', AWS_REGION: 'eu-central-1' }
  t.match(read({ MUSTER_REDIS_URL: 'redis+sentinel://a,b,c/muster', ...s3 }), { maxBodyBytes: 1024 * mebibyte })
  for (const text of [
    'S3://b',
    's3://',
    's3://Bucket',
    's3://b',
    's3://bucket/a b',
    's3://bucket/../x',
    'folder:x',
    'x',
  ])
    t.match(faultOf({ ...s3, MUSTER_PAYLOAD_STORE: text }), /MUSTER_PAYLOAD_STORE must/, text)
  t.match(faultOf({ MUSTER_PAYLOAD_STORE: 's3://bucket' }), /AWS_REGION must be set/)
  t.match(
    faultOf({ MUSTER_PAYLOAD_STORE: 'redis', MUSTER_MAX_BODY_BYTES: '67108865' }),
    /MUSTER_MAX_BODY_BYTES is 67108865, but payloads are kept in Redis, which takes 67108864 at most/,
  )
})
