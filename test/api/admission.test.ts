import { EventEmitter, once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { Admission } from '../../src/api/plugins/admission.ts'
import { LoginGuard } from '../../src/api/plugins/login-guard.ts'
import { Pace } from '../../src/api/plugins/pace.ts'
import { startTestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

const kib = 1024
const caller = (key: string) => ({ key, isFirst: false, isStranger: false })
const octets = { 'content-type': 'application/octet-stream' }

t.test('a caller has so many requests and bytes under way; workers and operators come first', async t => {
  const admission = new Admission({ maxRequests: 2, maxBytes: 1000 * kib })
  const first = admission.enter(caller('a'), 0)
  admission.enter(caller('a'), 0)
  t.throws(() => admission.enter(caller('a'), 0), { code: 'too_many_requests', retryAfterMs: 1000 })
  t.doesNotThrow(() => admission.enter(caller('b'), 0))
  t.doesNotThrow(() => admission.enter({ ...caller('a'), isFirst: true }, 10_000 * kib).end())
  first.end()
  first.end()
  const again = admission.enter(caller('a'), 500 * kib)
  t.equal(admission.heldBytes, 500 * kib)
  again.end()
  t.equal(admission.heldBytes, 0)
  t.throws(() => admission.enter(caller('c'), 501 * kib), { code: 'too_many_requests' }, 'half of all at most')
  admission.enter(caller('c'), 500 * kib)
  admission.enter(caller('d'), 400 * kib)
  t.throws(() => admission.enter(caller('e'), 101 * kib), { code: 'too_many_requests' }, 'all together')
})

t.test('room for a reply is bounded, and shared by who asks at once', async t => {
  const admission = new Admission({ maxRequests: 1000, maxBytes: 1000 * kib })
  t.equal(admission.enter(caller('a'), 0).reserve(10), 10)
  const stays = Array.from({ length: 20 }, () => admission.enter(caller('b'), 0))
  const granted: number[] = []
  t.throws(
    () => {
      for (const stay of stays) granted.push(stay.reserve(500 * kib))
    },
    { code: 'too_many_requests' },
  )
  t.ok(granted.length >= 3 && (granted[0] as number) > 0)
  t.ok(admission.heldBytes <= 501 * kib)
  stays[0]?.hold(0)
  t.ok((stays[0]?.reserve(100 * kib) as number) > 0)
})

t.test('who pulls without reading is refused in the end, and loses nothing', async t => {
  const api = await startTestApi(t, { MUSTER_MAX_PENDING_BYTES: String(8 * kib * kib), MUSTER_INLINE_BYTES: '1000000' })
  const worker = api.worker()
  await worker.heartbeat()
  const count = 14
  for (let index = 0; index < count; index += 1) {
    await api.call('PUT', '/enqueue?type=noop')
    const [lease] = await worker.claim()
    await worker.complete(lease as never, { value: { json: 'x'.repeat(900_000) } })
  }
  // By a unix socket, of which the kernel takes 200 kB for those who do not read. Of a TCP socket it may take some MB, which then
  // count as sent.
  // A path of 107 characters is all that a socket may have.
  const path = join(await mkdtemp(join(tmpdir(), 'muster-')), 'api.sock')
  const entrance = createServer((request, response) => api.app.server.emit('request', request, response)).listen(path)
  await once(entrance, 'listening')
  t.teardown(async () => {
    entrance.close()
    await rm(dirname(path), { recursive: true, force: true })
  })
  const clients: Socket[] = []
  const pullWithoutReading = (): void => {
    const socket = connect(path)
    socket.on('error', () => undefined)
    socket.pause()
    socket.write('POST /pullCompleted?top=1 HTTP/1.1\r\nHost: localhost\r\n\r\n')
    clients.push(socket)
  }
  const put = async (): Promise<number | undefined> => {
    const asked = request({
      socketPath: path,
      method: 'PUT',
      path: '/enqueue?type=noop',
      headers: { host: 'localhost' },
    }).end()
    const [reply] = (await once(asked, 'response')) as [IncomingMessage]
    reply.resume()
    return reply.statusCode
  }
  // One more each time: of many at once, those that ask while others have reserved the most get nothing, and do not ask again.
  await until(async () => {
    pullWithoutReading()
    return (await put()) === 429
  })
  t.equal((await worker.heartbeat()).drain, false, 'workers go on')
  t.equal((await api.call('GET', '/health/live')).status, 200)
  for (const client of clients) client.destroy()
  const collected = new Set<string>()
  await until(async () => {
    const { status, body } = await api.call('POST', '/pullCompleted?top=1000')
    if (status === 200) for (const entry of body) collected.add(entry['Work ID'])
    // What the kernel had taken counts as sent.
    return status === 200 && collected.size > 0 && body.length === 0
  })
  t.ok(collected.size > 0)
})

t.test('large JSON is refused with the advice how to send it', async t => {
  const api = await startTestApi(t, { MUSTER_MAX_JSON_BYTES: '2000' })
  const json = { payload: 'x'.repeat(3000) }
  const refused = await api.call('PUT', '/enqueue?type=noop', { json })
  t.match(refused, { status: 413, body: { code: 'body_too_large', detail: /raw bytes and multipart/ } })
  const stream = new ReadableStream({
    start(controller) {
      controller.enqueue(Buffer.from(JSON.stringify(json)))
      controller.close()
    },
  })
  const headers = { 'content-type': 'application/json' }
  t.match(await api.call('PUT', '/enqueue?type=noop', { headers, body: stream }), { status: 413 })
  t.equal((await api.call('PUT', '/enqueue?type=noop', { headers: octets, body: 'x'.repeat(3000) })).status, 200)
})

t.test('bad keys are counted by address: told once a minute, then refused', async t => {
  let now = 0
  const lines: unknown[] = []
  const guard = new LoginGuard(3, { warn: (line: unknown) => lines.push(line) } as never, () => now)
  t.strictSame(
    [1, 2, 3].map(() => guard.failed('10.0.0.1')),
    [undefined, undefined, undefined],
  )
  t.equal(guard.failed('10.0.0.1'), 60_000)
  t.equal(guard.failed('10.0.0.2'), undefined)
  t.equal(lines.length, 2)
  now = 60_000
  t.equal(guard.failed('10.0.0.1'), undefined)
  t.match(lines[2], { address: '10.0.0.1', countBefore: 4 })
  for (const last of [1, 2, 3]) guard.failed(`2001:db8::${last}`)
  t.ok(guard.failed('2001:db8:0:0:ffff::9'), 'one network')
  t.equal(guard.failed('2001:db8:0:1::9'), undefined, 'another one')

  const operatorKey = 'o'.repeat(40)
  const api = await startTestApi(t, { MUSTER_OPERATOR_KEY: operatorKey, MUSTER_MAX_FAILED_LOGINS: '5' })
  const as = (key: string) => api.call('GET', '/status', { headers: { authorization: `Bearer ${key}` } })
  for (let index = 0; index < 5; index += 1) t.equal((await as('wrong')).status, 401)
  const refused = await as('wrong')
  t.match(refused, { status: 429, body: { code: 'too_many_requests' } })
  t.ok(Number(refused.headers.get('retry-after')) > 0)
  t.equal((await as(operatorKey)).status, 200, 'a good key is good from there, too')
})

t.test('a body without pace is ended; one that waits for us is not', async t => {
  let now = 0
  const pace = new Pace({}, () => now)
  const make = () => {
    const socket = Object.assign(new EventEmitter(), {
      ...{ bytesRead: 100, bytesWritten: 0, writableLength: 0, written: '', isEnded: false },
      write(text: string) {
        this.written += text
      },
      destroySoon() {
        this.isEnded = true
      },
      destroy() {
        this.isEnded = true
      },
    })
    const request = { socket, complete: false, readableLength: 0 }
    pace.watch(request as never, { headersSent: false } as never)
    return { socket, request }
  }
  const [silent, slow, fast, waiting, whole, unread] = [make(), make(), make(), make(), make(), make()]
  waiting.request.readableLength = 10
  for (const { request } of [whole, unread]) request.complete = true
  Object.assign(unread.socket, { bytesWritten: 5000, writableLength: 1000 })
  for (now = 0; now <= 70_000; now += 5000) {
    slow.socket.bytesRead += 1000
    fast.socket.bytesRead += 5000
    pace.look()
    if (now < 20_000) t.notOk(silent.socket.isEnded)
    if (now <= 30_000) t.notOk(slow.socket.isEnded)
  }
  t.match(silent.socket.written, /^HTTP\/1\.1 408 .*body_too_slow/s)
  t.ok(silent.socket.isEnded && slow.socket.isEnded && unread.socket.isEnded)
  t.notOk(fast.socket.isEnded || waiting.socket.isEnded || whole.socket.isEnded)
})

t.test('the node ends such a request, and is told why', async t => {
  const api = await startTestApi(t)
  const pace = new Pace({ silentMs: 1, everyMs: 20 })
  api.app.server.prependListener('request', (request, response) => void pace.watch(request, response))
  pace.start()
  t.teardown(() => pace.stop())
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
  socket.write(
    'PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: 100\r\n\r\nx',
  )
  t.match(await text(socket), /408 .*body_too_slow/s)
  await until(async () => (await api.call('GET', '/status')).body.Jobs === 0)
})
