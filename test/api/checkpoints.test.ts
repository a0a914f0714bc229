/** Checkpoints as workers keep and get them: under a lease, inline or as blobs, over attempts. */
import { createHash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { Lease } from '../../src/contract/worker-protocol.ts'
import { startTestApi } from '../support/api.ts'
import { one, put } from '../support/job-calls.ts'
import { until } from '../support/until.ts'

const value = { value: { json: 1 } }
const digestOf = (bytes: Buffer | string): string => `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`
const describedBy = ({ headers }: { headers: Headers }): object => ({
  bytes: headers.get('content-length'),
  digest: headers.get('repr-digest'),
})

t.test('checkpoints', async t => {
  const api = await startTestApi(t, { MUSTER_BACKOFF_MS: '10', MUSTER_MAX_BODY_BYTES: '300000' })
  const worker = api.worker()
  await worker.heartbeat()
  const path = ({ workId, token }: Lease): string => `/workers/checkpoints/${workId}?token=${encodeURIComponent(token)}`
  const octets = { 'content-type': 'application/octet-stream' }
  const keep = async (lease: Lease, body: Buffer | ReadableStream) =>
    await api.call('PUT', path(lease), { body, headers: octets })
  const blobsOf = async (workId: string): Promise<string[]> => {
    const found: string[] = []
    for await (const key of api.store.list(0, Date.now() + 1000)) if (key.startsWith(workId)) found.push(key)
    return found
  }
  const failure = { error: { code: 'handler_error', message: 'no luck' } }

  const workId = await put(api, 'type=noop&attempts=9')
  const first = await one(worker)
  t.notHas(first, 'checkpoint')
  t.match(await api.call('GET', path(first)), { status: 404, body: { code: 'job_not_found' } })

  await t.test('small ones stand in the lease, over retries and returns', async t => {
    t.match(await keep(first, Buffer.from('one')), { status: 200, body: { bytes: 3 } })
    t.match(await keep(first, Buffer.from('two')), { status: 200, body: { bytes: 3 } })
    await worker.complete(first, failure)
    const second = await one(worker, 5000)
    t.match(second, { workId, attempt: 2, checkpoint: { base64: Buffer.from('two').toString('base64') } })
    await worker.requeue([second])
    const third = await one(worker)
    t.match(third, { attempt: 2, checkpoint: { base64: Buffer.from('two').toString('base64') } })
    const newest = await api.call('GET', path(third))
    t.equal(newest.status, 200)
    t.ok(Buffer.from('two').equals(newest.body))
    t.same(describedBy(newest), { bytes: '3', digest: digestOf('two') })
    await worker.requeue([third])
  })

  await t.test('large ones are blobs, of which the newest stays', async t => {
    const lease = await one(worker)
    const [old, young] = [Buffer.alloc(100_000, 'old'), Buffer.alloc(200_000, 'young')]
    t.match(await keep(lease, old), { body: { bytes: 100_000 } })
    const before = await blobsOf(workId)
    t.match(await keep(lease, young), { body: { bytes: 200_000 } })
    const after = await blobsOf(workId)
    t.equal(before.length, 1)
    t.equal(after.length, 1)
    t.not(after[0], before[0], 'each upload has a place of its own')
    await worker.complete(lease, failure)
    const next = await one(worker, 5000)
    const { blob } = next.checkpoint as { blob: { url: string; bytes: number; kind: string } }
    t.match(blob, { bytes: 200_000, kind: 'bytes' })
    const fetched = await api.call('GET', blob.url)
    t.same(describedBy(fetched), { bytes: '200000', digest: digestOf(young) })
    t.ok(young.equals(fetched.body))
    t.equal((await api.call('GET', `${blob.url}x`)).body.code, 'lease_lost')

    t.match(await keep(next, Buffer.alloc(300_001)), { status: 413, body: { code: 'body_too_large' } })
    t.match(await keep({ ...next, token: 'w1/other' }, Buffer.from('x')), { status: 409, body: { code: 'lease_lost' } })
    t.same(await blobsOf(workId), after)
    await worker.requeue([next])
  })

  await t.test('one whose lease goes while it is uploaded is refused, and leaves nothing', async t => {
    const before = await blobsOf(workId)
    const lease = await one(worker)
    let finish: () => void = () => undefined
    const gone = new Promise<void>(resolve => {
      finish = resolve
    })
    const body = new ReadableStream({
      async start(controller) {
        controller.enqueue(Buffer.alloc(60_000))
        await gone
        controller.enqueue(Buffer.alloc(60_000))
        controller.close()
      },
    })
    const upload = keep(lease, body)
    const half = join(api.settings.dataDir, 'payloads', 'tmp')
    await until(async () => (await readdir(half)).length > 0)
    await worker.requeue([lease])
    finish()
    t.match(await upload, { status: 409, body: { code: 'lease_lost' } })
    t.same(await blobsOf(workId), before)
  })

  await t.test('success drops it', async t => {
    const lease = await one(worker)
    t.ok(lease.checkpoint)
    t.match(await worker.complete(lease, value), { results: [{ outcome: 'succeeded' }] })
    t.same(await blobsOf(workId), [])
    t.equal(await api.redis.hexists(api.jobs.of('default').queue.jobKey(workId), 'checkpoint'), 0)
  })

  await t.test('a replay of a dead job goes on from it', async t => {
    const workId = await put(api, 'type=noop&attempts=1')
    const lease = await one(worker)
    await keep(lease, Buffer.from('far'))
    t.match(await worker.complete(lease, failure), { results: [{ outcome: 'dead' }] })
    await api.call('POST', `/jobs/${workId}/retry`)
    const again = await one(worker)
    t.match(again, { attempt: 1, checkpoint: { base64: Buffer.from('far').toString('base64') } })
    await worker.complete(again, value)
  })
})
