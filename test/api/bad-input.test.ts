import { readdir } from 'node:fs/promises'
import { request } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { catalogue } from '../../src/errors.ts'
import { startTestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

const octets = { 'content-type': 'application/octet-stream' }
const json = { 'content-type': 'application/json' }
const form = { 'content-type': 'application/x-www-form-urlencoded' }
const multipart = { 'content-type': 'multipart/form-data; boundary=b' }

t.test('bad input gets a problem with a stable code, and changes nothing', async t => {
  const api = await startTestApi(t, { MUSTER_MAX_BODY_BYTES: '100000' })
  const body = 'x'
  const part = (name: string, data = 'x'): string =>
    `--b\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${data}\r\n`
  const numbers = [
    '',
    '0',
    '-1',
    '1.5',
    '1e3',
    '0x10',
    ' 1',
    '1 ',
    '+1',
    'NaN',
    'Infinity',
    'abc',
    '1,000',
    '١',
    '99999999999999999999',
    '1'.repeat(400),
    'null',
    'true',
    '[]',
    '1;2',
  ]
  type Case = [method: string, path: string, options: Parameters<typeof api.call>[2], status: number, code: string]
  const cases: Case[] = [
    ...numbers.map(
      (value): Case => [
        'PUT',
        `/enqueue?iterations=${encodeURIComponent(value)}`,
        { headers: octets, body },
        400,
        'parameter_invalid',
      ],
    ),
    ...numbers.map(
      (value): Case => ['POST', `/pullCompleted?top=${encodeURIComponent(value)}`, {}, 400, 'parameter_invalid'],
    ),
    ...['priority', 'attempts', 'timeoutMs'].flatMap(name =>
      ['-1', '1.5', 'x', '99999999999999'].map(
        (value): Case => [
          'PUT',
          `/enqueue?iterations=1&${name}=${value}`,
          { headers: octets, body },
          400,
          'parameter_invalid',
        ],
      ),
    ),
    ['PUT', '/enqueue?iterations=10000000001', { headers: octets, body }, 400, 'parameter_invalid'],
    ['PUT', '/enqueue?iterations=1&iterations=2', { headers: octets, body }, 400, 'parameter_invalid'],
    ['PUT', '/enqueue', { headers: octets, body }, 400, 'iterations_missing'],
    ['PUT', '/enqueue?type=sha512', { headers: octets, body }, 400, 'iterations_missing'],
    ['PUT', '/enqueue?iteration=5', { headers: octets, body }, 400, 'parameter_unknown'],
    ['PUT', '/enqueue?iterations=1&type=noop', { headers: octets, body }, 400, 'parameter_invalid'],
    ['PUT', '/enqueue?type=nonsense', { headers: octets, body }, 400, 'type_unknown'],
    ['PUT', '/enqueue?type=', { headers: octets, body }, 400, 'parameter_invalid'],
    ['PUT', '/enqueue?iterations=1&queue=nonsense', { headers: octets, body }, 404, 'queue_unknown'],
    ['PUT', '/enqueue?iterations=1&queue=', { headers: octets, body }, 400, 'parameter_invalid'],
    ['PUT', '/enqueue?iterations=1', {}, 400, 'data_missing'],
    [
      'PUT',
      '/enqueue?iterations=1',
      { headers: { 'content-type': 'text/plain' }, body },
      415,
      'content_type_unsupported',
    ],
    [
      'PUT',
      '/enqueue?iterations=1',
      { headers: { 'content-type': 'nonsense' }, body },
      415,
      'content_type_unsupported',
    ],
    ['PUT', '/enqueue?iterations=1', { headers: json, body: '{' }, 400, 'json_invalid'],
    ['PUT', '/enqueue?iterations=1', { headers: json, body: '[]' }, 400, 'json_invalid'],
    ['PUT', '/enqueue?iterations=1', { headers: json, body: '"x"' }, 400, 'json_invalid'],
    ['PUT', '/enqueue?iterations=1', { headers: json, body: 'null' }, 400, 'json_invalid'],
    [
      'PUT',
      '/enqueue?iterations=1',
      { headers: json, body: Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]) },
      400,
      'json_invalid',
    ],
    ['PUT', '/enqueue?iterations=1', { headers: json, body: '{}' }, 400, 'data_missing'],
    ['PUT', '/enqueue?iterations=1', { headers: json, body: '{"Data":"YQ=="}' }, 400, 'parameter_unknown'],
    ['PUT', '/enqueue?iterations=1', { headers: json, body: '{"data":"YQ==","payload":1}' }, 400, 'data_missing'],
    ['PUT', '/enqueue?iterations=1', { headers: json, body: '{"payload":1}' }, 400, 'payload_invalid'],
    ...['"Y"', '"YQ="', '"YQ"', '"Y Q="', '"!!!!"', '"YQ==YQ=="', '5', 'null', '["YQ=="]'].map(
      (data): Case => [
        'PUT',
        '/enqueue?iterations=1',
        { headers: json, body: `{"data":${data}}` },
        400,
        'data_invalid',
      ],
    ),
    ['PUT', '/enqueue?iterations=1', { headers: form, body: 'Data=x' }, 400, 'parameter_unknown'],
    ['PUT', '/enqueue?iterations=1', { headers: form, body: 'data=x&data=y' }, 400, 'data_invalid'],
    ['PUT', '/enqueue?iterations=1', { headers: form, body: '&' }, 400, 'data_missing'],
    [
      'PUT',
      '/enqueue?iterations=1',
      { headers: { 'content-type': 'multipart/form-data' }, body: part('data') },
      400,
      'multipart_invalid',
    ],
    ['PUT', '/enqueue?iterations=1', { headers: multipart, body: 'nonsense' }, 400, 'multipart_invalid'],
    ['PUT', '/enqueue?iterations=1', { headers: multipart, body: part('data') }, 400, 'multipart_invalid'],
    ['PUT', '/enqueue?iterations=1', { headers: multipart, body: '--b--\r\n' }, 400, 'data_missing'],
    [
      'PUT',
      '/enqueue?iterations=1',
      { headers: multipart, body: `${part('other')}--b--\r\n` },
      400,
      'parameter_unknown',
    ],
    [
      'PUT',
      '/enqueue?iterations=1',
      { headers: multipart, body: `${part('data')}${part('data')}--b--\r\n` },
      400,
      'multipart_invalid',
    ],
    ['PUT', '/enqueue?iterations=1', { headers: octets, body: Buffer.alloc(100_001) }, 413, 'body_too_large'],
    [
      'PUT',
      '/enqueue?iterations=1',
      { headers: multipart, body: `${part('data', 'x'.repeat(100_001))}--b--\r\n` },
      413,
      'body_too_large',
    ],
    [
      'PUT',
      '/enqueue?iterations=1',
      { headers: json, body: JSON.stringify({ data: Buffer.alloc(100_001).toString('base64') }) },
      413,
      'body_too_large',
    ],
    ['PUT', '/enqueue?iterations=1', { headers: form, body: `data=${'x'.repeat(100_001)}` }, 413, 'body_too_large'],
    ['PUT', '/enqueue?iterations=1', { headers: form, body: `data=${'x'.repeat(300_000)}` }, 413, 'body_too_large'],
    ['PUT', '/enqueue?type=sleep', { headers: json, body: '{"payload":{}}' }, 400, 'payload_invalid'],
    ['PUT', '/enqueue?type=sleep', { headers: json, body: '{"payload":{"ms":-1}}' }, 400, 'payload_invalid'],
    ['PUT', '/enqueue?type=sleep', { headers: octets, body }, 400, 'payload_invalid'],
    ['PUT', '/enqueue?type=sleep', {}, 400, 'payload_invalid'],
    ...['', 'a b', 'é'.normalize('NFC'), 'x'.repeat(256)].map(
      (key): Case => [
        'PUT',
        '/enqueue?type=noop',
        { headers: { 'idempotency-key': key } },
        400,
        'idempotency_key_invalid',
      ],
    ),
    ['POST', '/pullCompleted', {}, 400, 'parameter_invalid'],
    ['POST', '/pullCompleted?top=10001', {}, 400, 'parameter_invalid'],
    ['POST', '/pullCompleted?top=1&top=2', {}, 400, 'parameter_invalid'],
    ['POST', '/pullCompleted?top=1&queue=nonsense', {}, 404, 'queue_unknown'],
    ['POST', '/pullCompleted?top=1&failed=maybe', {}, 400, 'parameter_invalid'],
    ['POST', '/pullCompleted?top=1&waitMs=99999999', {}, 400, 'parameter_invalid'],
    ['POST', '/pullCompleted?top=1&leaseMs=1', {}, 400, 'parameter_invalid'],
    ['POST', '/pullCompleted/ack', {}, 400, 'request_invalid'],
    ['POST', '/pullCompleted/ack', { json: {} }, 400, 'request_invalid'],
    ['POST', '/pullCompleted/ack', { json: { workIds: 'x' } }, 400, 'request_invalid'],
    ['POST', '/pullCompleted/ack', { json: { workIds: [], x: 1 } }, 400, 'parameter_unknown'],
    ['POST', '/pullCompleted/ack', { json: { leaseId: 'nonsense' } }, 404, 'lease_not_found'],
    ['POST', '/pullCompleted/ack', { headers: json, body: '{' }, 400, 'json_invalid'],
    ['POST', '/pullCompleted/ack', { headers: octets, body }, 415, 'content_type_unsupported'],
    ...[
      'x',
      '../../etc/passwd',
      '%00',
      'w'.repeat(120),
      'nonsense.w123456789012345678901',
      'w123456789012345678901',
    ].flatMap((id): Case[] => [
      ['GET', `/jobs/${encodeURIComponent(id)}`, {}, 404, 'job_not_found'],
      ['GET', `/jobs/${encodeURIComponent(id)}/result`, {}, 404, 'job_not_found'],
      ['GET', `/jobs/${encodeURIComponent(id)}/logs`, {}, 404, 'job_not_found'],
      ['DELETE', `/jobs/${encodeURIComponent(id)}`, {}, 404, 'job_not_found'],
      ['POST', `/jobs/${encodeURIComponent(id)}/retry`, {}, 404, 'job_not_found'],
    ]),
    ...[
      'x',
      '!!',
      Buffer.from('{}').toString('base64url'),
      Buffer.from('["a",0,0]').toString('base64url'),
      Buffer.from('[1,2,3,4,5]').toString('base64url'),
    ].map((cursor): Case => ['GET', `/jobs?cursor=${encodeURIComponent(cursor)}`, {}, 400, 'cursor_invalid']),
    ['GET', '/jobs?state=nonsense', {}, 400, 'parameter_invalid'],
    ['GET', '/jobs?limit=0', {}, 400, 'parameter_invalid'],
    ['GET', '/jobs?queue=nonsense', {}, 404, 'queue_unknown'],
    ['GET', '/jobs?page=2', {}, 400, 'parameter_unknown'],
    ['GET', '/queues/nonsense', {}, 404, 'queue_unknown'],
    ['POST', '/queues/nonsense/pause', {}, 404, 'queue_unknown'],
    ['POST', '/queues/default/explode', {}, 404, 'route_not_found'],
    ['GET', '/fleet/decisions?cursor=nonsense', {}, 400, 'cursor_invalid'],
    ['POST', '/fleet/spawn', { json: { count: 0 } }, 400, 'request_invalid'],
    ['POST', '/fleet/spawn', { json: {} }, 409, 'fleet_none'],
    ['POST', '/fleet/instances/nonsense/terminate', {}, 404, 'instance_not_found'],
    ['POST', '/workers/claim', { json: { workerId: 'w9', queue: 'default', max: 1 } }, 409, 'worker_unknown'],
    ['POST', '/workers/claim', { json: { workerId: 'w9', queue: 'default', max: '1' } }, 400, 'request_invalid'],
    ['POST', '/workers/claim', { json: { workerId: 'w9', queue: 'nonsense', max: 1 } }, 404, 'queue_unknown'],
    ['POST', '/workers/complete', { json: { workerId: 'w9', queue: 'default', results: [] } }, 400, 'request_invalid'],
    ['GET', '/nonsense', {}, 404, 'route_not_found'],
    ['GET', '/enqueue?iterations=1', {}, 405, 'method_not_allowed'],
    ['DELETE', '/enqueue?iterations=1', {}, 405, 'method_not_allowed'],
    ['PUT', '/pullCompleted?top=1', {}, 405, 'method_not_allowed'],
    ['GET', '/jobs/%zz', {}, 400, 'request_invalid'],
  ]
  for (const [method, path, options, status, code] of cases) {
    const reply = await api.call(method, path, options)
    const name = `${method} ${path.slice(0, 100)} ${JSON.stringify(options).slice(0, 100)}`
    t.strictSame(
      [reply.status, reply.body.code],
      [status, code],
      `${name}: ${JSON.stringify(reply.body).slice(0, 300)}`,
    )
    t.match(reply.headers.get('content-type'), /^application\/problem\+json/, name)
    t.match(reply.body, { type: String, title: String, detail: String, action: String, status }, name)
  }
  t.equal((await api.call('GET', '/enqueue')).headers.get('allow'), 'POST, PUT')
  t.match(
    (await api.call('GET', '/status')).body,
    { Jobs: 0, Running: 0, Delayed: 0, Uncollected: 0, Dead: 0 },
    'nothing was enqueued',
  )
  t.strictSame((await api.call('GET', '/jobs')).body, { jobs: [] })
  const blobs = []
  for await (const key of api.store.list(0, Date.now() + 1000)) blobs.push(key)
  t.strictSame(blobs, [], 'nothing is left in the payload store')
  t.ok(new Set(cases.map(([, , , , code]) => code)).size > 20)
  t.ok(cases.every(([, , , , code]) => code in catalogue))
})

t.test('on the wire', async t => {
  const api = await startTestApi(t, { MUSTER_INLINE_BYTES: '1000' })
  const { port, hostname } = new URL(api.url)

  await t.test('a client that goes away in the middle of its upload leaves nothing', async t => {
    const folder = join(api.settings.dataDir, 'payloads', 'tmp')
    const writing = async (): Promise<void> => await until(async () => (await readdir(folder)).length > 0)
    const upload = request(`${api.url}/enqueue?iterations=1`, {
      method: 'PUT',
      headers: { ...octets, 'content-length': '1000000' },
    })
    upload.on('error', () => undefined)
    upload.write(Buffer.alloc(300_000))
    await writing()
    upload.destroy()
    await until(async () => (await readdir(folder)).length === 0)
    const broken = request(`${api.url}/enqueue?iterations=1`, {
      method: 'PUT',
      headers: { ...multipart, 'content-length': '1000000' },
    })
    broken.on('error', () => undefined)
    broken.write(`--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n${'x'.repeat(300_000)}`)
    await writing()
    broken.destroy()
    await until(async () => (await readdir(folder)).length === 0)
    t.match((await api.call('GET', '/status')).body, { Jobs: 0 })
    const blobs = []
    for await (const key of api.store.list(0, Date.now() + 1000)) blobs.push(key)
    t.strictSame(blobs, [])
  })

  await t.test('what is no HTTP is answered with a problem too', async t => {
    const socket = connect(Number(port), hostname)
    socket.end('nonsense\r\n\r\n')
    const chunks: Buffer[] = []
    for await (const chunk of socket) chunks.push(chunk as Buffer)
    t.match(Buffer.concat(chunks).toString(), /^HTTP\/1.1 400 [\s\S]*"code":"request_invalid"/)
  })
})

t.test('Redis away: 503 with Retry-After, and all is well after', async t => {
  const api = await startTestApi(t, {}, { appendOnly: true })
  const worker = api.worker()
  await worker.heartbeat()
  const put = async () => await api.call('PUT', '/enqueue?iterations=1', { headers: octets, body: 'x' })
  const before = (await put()).body['Work ID']
  const waiting = api.call('POST', '/pullCompleted?top=1&waitMs=20000')
  await api.server.kill()
  for (const reply of [
    await put(),
    await waiting,
    await api.call('GET', '/status'),
    await api.call('GET', '/health/ready'),
  ]) {
    t.equal(reply.status, 503)
    t.equal(reply.body.code, 'redis_unavailable')
    t.ok(Number(reply.headers.get('retry-after')) >= 1)
  }
  t.equal((await api.call('GET', '/health/live')).status, 200)
  await api.server.restart()
  await until(async () => (await api.call('GET', '/health/ready')).status === 200)
  const after = (await put()).body['Work ID']
  await worker.heartbeat()
  const leases = await worker.claim(9)
  t.strictSame(
    leases.map(lease => lease.workId),
    [before, after],
  )
  for (const lease of leases) await worker.complete(lease, { value: { json: 1 } })
  t.equal((await api.call('POST', '/pullCompleted?top=9')).body.length, 2)
})

t.test('a full Redis refuses new jobs and still finishes old ones', async t => {
  const api = await startTestApi(t, {}, { config: { maxmemory: '100mb' } })
  const worker = api.worker()
  await worker.heartbeat()
  const put = async () => await api.call('PUT', '/enqueue?iterations=1', { headers: octets, body: 'x' })
  t.equal((await put()).status, 200)
  await api.redis.setrange('filler', 20_000_000, 'x')
  const used = Number(/used_memory:(\d+)/.exec(await api.redis.info('memory'))?.[1])
  await api.redis.config('SET', 'maxmemory', Math.round(used * 1.08))
  await until(async () => (await put()).status === 503)
  const refused = await put()
  t.equal(refused.body.code, 'overloaded')
  t.ok(Number(refused.headers.get('retry-after')) >= 1)
  const [lease] = await worker.claim()
  if (lease) t.match(await worker.complete(lease, { value: { json: 1 } }), { results: [{ outcome: 'succeeded' }] })
  t.ok(lease)
})
