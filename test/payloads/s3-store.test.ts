import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import {
  CreateBucketCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { StartupError } from '../../src/errors.ts'
import { openPayloadStore } from '../../src/payloads/open-payload-store.ts'
import { PayloadTooLargeError } from '../../src/payloads/payload-store.ts'
import { checkBucket } from '../../src/payloads/s3/check-bucket.ts'
import { openS3Calls, type S3Pace } from '../../src/payloads/s3/s3-calls.ts'
import { S3Store } from '../../src/payloads/s3/s3-store.ts'
import { partBytesOf } from '../../src/payloads/s3/upload.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { payloadStoreContract } from '../contracts/payload-store-contract.ts'
import { startMoto } from '../support/aws/moto.ts'
import { startS3Proxy } from '../support/aws/s3-proxy.ts'

process.env.AWS_ACCESS_KEY_ID = 'test'
process.env.AWS_SECRET_ACCESS_KEY = 'test'
const region = 'us-east-1'
const moto = await startMoto(t)
const proxy = await startS3Proxy(t, moto.url)
const admin = new S3Client({
  region,
  endpoint: moto.url,
  forcePathStyle: true,
  credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
})
t.teardown(() => admin.destroy())
t.afterEach(() => {
  proxy.fault = () => undefined
})
const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')
const plenty = { maxBytes: 64 * 1024 * 1024 }
const silent = pino({ level: 'silent' })
let buckets = 0

async function makeBucket(): Promise<string> {
  buckets += 1
  const bucket = `payloads-${buckets}`
  await admin.send(new CreateBucketCommand({ Bucket: bucket }))
  return bucket
}

/** Twenty at a time. */
async function eachAtOnce(keys: readonly string[], put: (key: string) => Promise<void>): Promise<void> {
  for (let from = 0; from < keys.length; from += 20) await Promise.all(keys.slice(from, from + 20).map(put))
}

const openCalls = async (t: Test, pace: Partial<S3Pace> = {}) => {
  const calls = await openS3Calls({ region, endpoint: proxy.url }, pace)
  t.teardown(() => calls.close())
  return calls
}

async function openStore(t: Test, pace: Partial<S3Pace> = {}): Promise<{ store: S3Store; bucket: string }> {
  const bucket = await makeBucket()
  return { store: new S3Store(await openCalls(t, pace), { bucket, prefix: 'some/where/' }), bucket }
}

payloadStoreContract(t, 'S3Store', async (t: Test) => (await openStore(t)).store)

t.test('what is larger than a part goes in parts; one that breaks off leaves none', async t => {
  const { store, bucket } = await openStore(t)
  const content = randomBytes(12 * 1024 * 1024 + 1)
  const pieces = (): Readable =>
    Readable.from(
      Array.from({ length: 50 }, (_, i) => content.subarray(i * 300_000, (i + 1) * 300_000)),
      { objectMode: false },
    )
  const before = proxy.calls.length
  t.same(await store.put('w1/payload', pieces(), plenty), { bytes: content.byteLength, sha256: sha256(content) })
  const parts = proxy.calls.slice(before).filter(({ path }) => /partNumber=/.test(path))
  t.equal(parts.length, 3)
  await store.put('w0/small', Buffer.from('x'), plenty)
  const puts = proxy.calls.slice(before).filter(({ method }) => method === 'PUT')
  t.equal(
    puts.filter(({ headers }) => headers['x-amz-checksum-sha256'] !== undefined).length,
    4,
    'each has its SHA-256',
  )
  await store.delete(['w0/small'])
  const found = await store.get('w1/payload')
  t.ok(found && (await buffer(found.stream)).equals(content))
  await t.rejects(store.put('w2/payload', pieces(), { maxBytes: 11 * 1024 * 1024 }), PayloadTooLargeError)
  const { Uploads = [] } = await admin.send(new ListMultipartUploadsCommand({ Bucket: bucket }))
  t.same(Uploads, [], 'the upload was aborted')
  const { Contents = [] } = await admin.send(new ListObjectsV2Command({ Bucket: bucket }))
  t.same(
    Contents.map(({ Key }) => Key),
    ['some/where/muster-payloads/w1/payload'],
  )
  t.equal(partBytesOf(plenty.maxBytes), 5 * 1024 * 1024)
  const terabyte = 1024 ** 4
  t.ok(10_000 * partBytesOf(terabyte) >= terabyte, 'ten thousand parts hold the largest payload that can be set')
})

t.test('an upload that S3 breaks off leaves no parts, and says why', async t => {
  const { store, bucket } = await openStore(t)
  const content = randomBytes(12 * 1024 * 1024)
  const leftParts = async (): Promise<number> =>
    (await admin.send(new ListMultipartUploadsCommand({ Bucket: bucket }))).Uploads?.length ?? 0
  const refused = { code: 'payload_store_unavailable', message: /AccessDenied/ }
  const denied = { status: 403, code: 'AccessDenied' } as const
  for (const [what, isMet] of [
    ['a part', (method, path) => method === 'PUT' && path.includes('partNumber=2')],
    ['the end', (method, path) => method === 'POST' && path.includes('uploadId=')],
  ] satisfies [string, (method: string, path: string) => boolean][]) {
    proxy.fault = (method, path) => (isMet(method, path) ? denied : undefined)
    await t.rejects(store.put('w/a', content, plenty), refused, what)
    t.equal(await leftParts(), 0, what)
  }
  proxy.fault = (method, path) =>
    method === 'DELETE' ? { status: 403, code: 'NoAbort' } : path.includes('partNumber=2') ? denied : undefined
  await t.rejects(store.put('w/a', content, plenty), refused, 'what ended it is told, not that its parts stay')
  proxy.fault = method => (method === 'DELETE' ? denied : undefined)
  const most = { maxBytes: 11 * 1024 * 1024 }
  await t.rejects(store.put('w/a', content, most), PayloadTooLargeError, 'nor does that hide what the sender did')
  t.equal(await store.get('w/a'), undefined)
})

t.test('what S3 fails at for a moment is done again; what it refuses is a 503', async t => {
  const { store } = await openStore(t, { tryMs: 1000 })
  const fresh = new Set<string>()
  for (const fault of ['reset', 'hang', { status: 503, code: 'SlowDown' }] as const) {
    fresh.clear()
    proxy.fault = method => {
      if (fresh.has(method)) return undefined
      fresh.add(method)
      return fault
    }
    await store.put('w/a', Buffer.from('first'), plenty)
    const found = await store.get('w/a')
    t.equal(String(found && (await buffer(found.stream))), 'first', JSON.stringify(fault))
    await store.delete(['w/a'])
    t.same([...fresh].sort(), ['GET', 'POST', 'PUT'], 'each was met by the fault')
    proxy.fault = () => undefined
    t.equal(await store.get('w/a'), undefined)
  }
  proxy.fault = () => ({ status: 403, code: 'AccessDenied' })
  const refused = { code: 'payload_store_unavailable', status: 503, message: /AccessDenied/ }
  await t.rejects(store.put('w/a', Buffer.from('x'), plenty), refused)
  await t.rejects(store.get('w/a'), refused)
  await t.rejects(store.delete(['w/a']), refused)
})

t.test('a list goes over all pages, and each page has its own time', async t => {
  const { store, bucket } = await openStore(t, { tryMs: 4000, callMs: 4000 })
  const keys = Array.from({ length: 1001 }, (_, i) => `w/${String(i).padStart(4, '0')}`)
  await eachAtOnce(keys, async key => {
    await admin.send(new PutObjectCommand({ Bucket: bucket, Key: `some/where/muster-payloads/${key}`, Body: 'x' }))
  })
  const found: string[] = []
  const before = proxy.calls.length
  for await (const key of store.list(-60_000, Date.now())) found.push(key)
  t.same(found, keys)
  t.equal(proxy.calls.length - before, 2, 'two pages')
  proxy.fault = (_method, path) => (/continuation-token/.test(path) ? 'hang' : undefined)
  found.length = 0
  const broken = async (): Promise<void> => {
    for await (const key of store.list(-60_000, Date.now())) found.push(key)
  }
  await t.rejects(broken(), { code: 'payload_store_unavailable' })
  t.equal(found.length, 1000, 'the first page was read')
})

t.test('an S3 that never answers is given up', async t => {
  const { store } = await openStore(t, { tryMs: 300, callMs: 900 })
  proxy.fault = () => 'hang'
  await t.rejects(store.put('w/a', Buffer.from('x'), plenty), { code: 'payload_store_unavailable' })
  await t.rejects(store.get('w/a'), { code: 'payload_store_unavailable' })
})

t.test('a download goes on where it broke off or fell silent', async t => {
  const { store } = await openStore(t, { stalledMs: 500 })
  const content = randomBytes(3_000_000)
  await store.put('w/a', content, plenty)
  for (const [first, second] of [
    [{ breakAfter: 700_000 }, { stallAfter: 900_000 }],
    [{ stallAfter: 1 }, { breakAfter: 1 }],
  ] as const) {
    const faults: ({ breakAfter: number } | { stallAfter: number } | undefined)[] = [first, second]
    proxy.fault = () => faults.shift()
    const before = proxy.calls.length
    const found = await store.get('w/a')
    t.ok(found && (await buffer(found.stream)).equals(content))
    t.equal(proxy.calls.length - before, 3, 'three requests')
  }
  let count = 0
  proxy.fault = () => (count++ === 0 ? { breakAfter: 100_000 } : 'reset')
  const found = await store.get('w/a')
  t.ok(found)
  if (found) await t.rejects(buffer(found.stream), 'not for ever')
})

t.test('a closed download lets go of its connection, read or not', async t => {
  const { store } = await openStore(t)
  await store.put('w/a', randomBytes(3_000_000), plenty)
  for (const readFirst of [false, true]) {
    const found = await store.get('w/a')
    if (found === undefined) throw new Error('absent')
    if (readFirst) for await (const _ of found.stream) break
    found.stream.destroy()
    await new Promise<void>(resolve => (found.stream.closed ? resolve() : found.stream.once('close', () => resolve())))
  }
  t.pass('and nothing keeps this test alive')
})

t.test('at the start the bucket and each right are looked for', async t => {
  const bucket = await makeBucket()
  const place = { bucket, prefix: '' }
  const calls = await openCalls(t, { tryMs: 500, callMs: 1500 })
  await checkBucket(calls, place, silent)
  const { Contents = [] } = await admin.send(new ListObjectsV2Command({ Bucket: bucket }))
  t.same(Contents, [], 'nothing is left')
  const missing = checkBucket(calls, { bucket: 'nobody-made-it', prefix: '' }, silent)
  await t.rejects(missing, StartupError)
  await t.rejects(missing, { message: /s3:\/\/nobody-made-it\/, but there is no such bucket/ })
  for (const [method, right] of [
    ['GET', 's3:ListBucket'],
    ['PUT', 's3:PutObject'],
    ['HEAD', 's3:GetObject'],
    ['DELETE', 's3:DeleteObject'],
  ] as const) {
    proxy.fault = asked => (asked === method ? { status: 403, code: 'AccessDenied' } : undefined)
    await t.rejects(checkBucket(calls, place, silent), { name: 'StartupError', message: right }, right)
  }
  proxy.fault = () => ({ status: 301, code: 'PermanentRedirect' })
  await t.rejects(checkBucket(calls, place, silent), { message: /another region/ })
  const warnings: unknown[] = []
  proxy.fault = () => 'hang'
  await checkBucket(calls, place, { warn: (fields: unknown) => void warnings.push(fields) })
  t.equal(warnings.length, 1, 'when S3 cannot be reached the node starts all the same')
})

t.test('the setting opens it', async t => {
  const bucket = await makeBucket()
  const settings = readSettings({
    MUSTER_CONFIG_FILE: '/nonexistent',
    MUSTER_PAYLOAD_STORE: `s3://${bucket}/deep/down/`,
    AWS_REGION: region,
    AWS_ENDPOINT_URL: proxy.url,
  })
  const none = async (): Promise<never> => {
    throw new Error('no Redis is needed')
  }
  const opened = await openPayloadStore({ settings, connect: none, writes: undefined as never, log: silent })
  await opened.store.put('w/a', Buffer.from('x'), plenty)
  await opened.close()
  const { Contents = [] } = await admin.send(new ListObjectsV2Command({ Bucket: bucket }))
  t.same(
    Contents.map(({ Key }) => Key),
    ['deep/down/muster-payloads/w/a'],
  )
  const absent = { ...settings, payloadStore: 's3://nobody-made-it' }
  await t.rejects(openPayloadStore({ settings: absent, connect: none, writes: undefined as never, log: silent }), {
    name: 'StartupError',
  })
})
