/** Backpressure for memory and disk: new work stops in time, and all that ends work goes on in a full Redis. */
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { defaultReserveBytes, readDisk } from '../../../src/disk-space.ts'
import { MemoryGuard } from '../../../src/jobs/submit/memory-guard.ts'
import { ReserveFile } from '../../../src/jobs/submit/reserve-file.ts'
import { type Reply, startTestApi, type TestApi } from '../../support/api.ts'
import { mountSmallDisk } from '../../support/small-disk.ts'

const mebibyte = 1024 ** 2
const put = (api: TestApi, bytes = 3): Promise<Reply> =>
  api.call('PUT', '/enqueue?iterations=1', {
    headers: { 'content-type': 'application/octet-stream' },
    body: Buffer.alloc(bytes),
  })

async function isOverloaded(t: Test, reply: Reply, what: RegExp): Promise<void> {
  t.equal(reply.status, 503, JSON.stringify(reply.body))
  t.match(reply.body, { code: 'overloaded', detail: what })
  t.ok(Number(reply.headers.get('retry-after')) >= 1)
}

t.test('how much of a disk is kept', t => {
  for (const [totalMib, keptMib] of [
    [120, 24],
    [2048, 409.6],
    [8192, 1024],
    [20_480, 1024],
    [102_400, 5120],
  ] as const)
    t.equal(Math.round(defaultReserveBytes(totalMib * mebibyte)), Math.round(keptMib * mebibyte))
  t.end()
})

t.test('what was let in since the last look counts', async t => {
  const api = await startTestApi(t, {}, { config: { maxmemory: '40mb' } })
  const { redis } = api
  const log = pino({ level: 'silent' })
  const guard = new MemoryGuard({ redis, log })
  await guard.loop.runOnce()
  let count = 0
  t.throws(
    () => {
      for (; count < 1000; count += 1) guard.admit({ memoryBytes: mebibyte, diskBytes: 0 })
    },
    { code: 'overloaded', message: /Memory/ },
  )
  t.ok(count > 20 && count < 40, `${count} MiB of 40 were let in between two looks`)
  await guard.loop.runOnce()
  t.doesNotThrow(() => guard.admit(), 'none of it came: the next look sees that')
})

t.test('a full Redis: what ends work goes on, nothing is a 500', async t => {
  const api = await startTestApi(t, { MUSTER_BACKOFF_MS: '0' })
  const { redis, jobs } = api
  const workIds: string[] = []
  for (let n = 0; n < 12; n += 1) workIds.push((await put(api)).body['Work ID'])
  const worker = api.worker()
  await worker.heartbeat()
  const leases = await worker.claim(6)
  const [done, alsoDone, failing, dying, running, returned] = leases
  if (!done || !alsoDone || !failing || !dying || !running || !returned) throw new Error('six were claimed')
  await worker.complete(done, { value: { json: 'before' } })

  await redis.config('SET', 'maxmemory', '1mb')
  await jobs.memoryGuard.loop.runAfresh()
  await t.rejects(redis.set('x', 'y'), /OOM/, 'it takes nothing more')
  await isOverloaded(t, await put(api), /^Memory: Redis uses/)
  t.match(await api.call('GET', '/health/ready'), { status: 200, body: { overloaded: /^Memory/ } })
  t.match(await api.call('GET', '/health/checks'), { status: 200, body: { overloaded: /^Memory/ } })

  await worker.heartbeat([running, alsoDone])
  await api.worker('new').heartbeat()
  t.match(await worker.complete(alsoDone, { value: { json: 'full' }, logs: ['a line'] }), {
    results: [{ outcome: 'succeeded' }],
  })
  const retryable = { code: 'x', message: 'again' }
  t.match(await worker.complete(failing, { error: retryable }), { results: [{ outcome: 'retrying' }] })
  const final = { code: 'x', message: 'never', retryable: false }
  t.match(await worker.complete(dying, { error: final }), { results: [{ outcome: 'dead' }] })
  t.equal(await worker.requeue([returned]), 1)
  t.equal((await worker.claim(1)).length, 1, 'claims go on')

  t.equal((await api.call('DELETE', `/jobs/${running.workId}`)).status, 200, 'a running job is cancelled')
  t.equal((await api.call('DELETE', `/jobs/${workIds[11]}`)).status, 200, 'a waiting one, too')
  t.match(await api.call('GET', `/jobs/${running.workId}`), { body: { state: 'cancelled' } })

  const leased = await api.call('POST', '/pullCompleted?top=1&leaseMs=60000')
  t.equal(leased.status, 200)
  const plain = await api.call('POST', '/pullCompleted?top=10')
  t.equal(plain.status, 200)
  t.same(
    [leased.body, plain.body]
      .flat()
      .map(({ Value }: { Value: string }) => Value)
      .sort(),
    ['before', 'full'],
  )
  t.equal((await api.call('POST', '/queues/default/pause')).status, 200)
  t.equal((await api.call('POST', '/queues/default/resume')).status, 200)
  t.ok((await jobs.retention.forgetExpired(Date.now() + 365 * 86_400_000)) >= 2, 'what is over is forgotten')
  t.match(await api.call('POST', '/queues/default/drain'), { status: 200, body: { state: 'draining' } })
  t.equal((await api.call('POST', '/queues/default/resume')).status, 200)
  t.not((await api.call('POST', `/jobs/${dying.workId}/retry`)).status, 500)

  await redis.config('SET', 'maxmemory', '0')
  await jobs.memoryGuard.loop.runAfresh()
  t.equal((await put(api)).status, 200)
})

t.test(
  'a disk that runs short: new work stops before it is full, the reserve file is given up and made again',
  async t => {
    const disk = await mountSmallDisk(t, '60m')
    if (disk === undefined) return
    const api = await startTestApi(t, { MUSTER_DATA_DIR: disk.folder, MUSTER_INLINE_BYTES: '1000' })
    const { memoryGuard: guard } = api.jobs
    await guard.loop.runAfresh()
    t.equal((await put(api, 2_000_000)).status, 200)
    const [lease] = await (async () => {
      const worker = api.worker()
      await worker.heartbeat()
      return worker.claim(1)
    })()
    await disk.fill(13 * mebibyte)
    await guard.loop.runAfresh()
    t.equal((await put(api, 3)).status, 200, 'above the reserve of 12 MiB')
    await isOverloaded(t, await put(api, 2_000_000), /^Disk: 1\d MiB are free under \/.*MUSTER_DISK_RESERVE_MB/)
    await disk.fill(5 * mebibyte)
    await guard.loop.runAfresh()
    await isOverloaded(t, await put(api, 3), /^Disk: \d MiB are free/)
    t.match(await api.call('GET', '/health/ready'), { status: 200, body: { overloaded: /^Disk/ } })
    if (lease === undefined) throw new Error('one was claimed')
    t.match(await api.worker().complete(lease, { value: { json: 1 } }), { results: [{ outcome: 'succeeded' }] })
    await disk.fill()
    await guard.loop.runAfresh()
    await guard.loop.runAfresh()
    t.ok(await freeAbove(disk.folder, mebibyte / 2), 'a full disk has the room of the reserve file')
    await disk.free()
    await guard.loop.runAfresh()
    t.equal((await put(api, 3)).status, 200)
  },
)

t.test('the reserve file, step by step', async t => {
  const folder = t.testdir()
  const file = new ReserveFile(folder)
  const totalBytes = 100 * mebibyte
  t.equal(await file.keep({ freeBytes: 10 * mebibyte, totalBytes }, 20 * mebibyte), undefined, 'no room for it')
  t.equal(await file.keep({ freeBytes: 50 * mebibyte, totalBytes }, 20 * mebibyte), 'made')
  t.equal(await file.keep({ freeBytes: 48 * mebibyte, totalBytes }, 20 * mebibyte), undefined)
  const next = new ReserveFile(folder)
  t.equal(await next.keep({ freeBytes: 2 * mebibyte, totalBytes }, 20 * mebibyte), undefined, 'short, not full')
  t.equal(await next.keep({ freeBytes: 0, totalBytes }, 20 * mebibyte), 'given up', 'one of an earlier run, too')
  t.equal(await next.keep({ freeBytes: 2 * mebibyte, totalBytes }, 20 * mebibyte), undefined)
})

async function freeAbove(folder: string, bytes: number): Promise<boolean> {
  return ((await readDisk(folder))?.freeBytes ?? 0) > bytes
}
