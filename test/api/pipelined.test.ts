/** Several requests on one connection, sent before the first is answered, and a client that goes away meanwhile. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { startTestApi, type TestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

/** As many requests, all of which the node has begun; resolves to what hangs up, and waits until the node has seen it. */
async function pipeline(api: TestApi, requests: readonly string[]): Promise<() => Promise<void>> {
  const { server } = api.app
  let begun = 0
  const count = (): void => {
    begun += 1
  }
  server.on('request', count)
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const client = connect(Number(new URL(api.url).port), '127.0.0.1')
  client.write(requests.join(''))
  const [socket] = await accepted
  await until(() => begun === requests.length)
  server.off('request', count)
  return async () => {
    // A reset is an error, too, and once() would throw it.
    const closed = new Promise(resolve => socket.once('close', resolve))
    client.destroy()
    await closed
  }
}

const post = (path: string, body: object | '' = ''): string => {
  const bytes = body === '' ? '' : JSON.stringify(body)
  return `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${bytes.length}\r\n\r\n${bytes}`
}
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`
const times = (count: number, request: string): string[] => Array.from({ length: count }, () => request)

t.test('a result that comes after all have gone is for the next who pulls', async t => {
  const api = await startTestApi(t)
  const worker = api.worker()
  await worker.heartbeat()
  for (const count of [1, 2, 5]) {
    const hangUp = await pipeline(api, times(count, post('/pullCompleted?top=10&waitMs=60000')))
    await hangUp()
    const { body } = await api.call('PUT', '/enqueue?type=noop')
    const [lease] = await worker.claim(1, 10_000)
    await worker.complete(lease as never, { value: { json: count } })
    const pulled = await api.call('POST', '/pullCompleted?top=10&waitMs=60000')
    t.match(pulled.body, [{ 'Work ID': body['Work ID'], Value: count }], `after ${count} on one connection`)
  }
})

t.test('so is one that was to be sent behind a reply that nobody reads', async t => {
  const api = await startTestApi(t, { MUSTER_INLINE_BYTES: '1000000' })
  const worker = api.worker()
  await worker.heartbeat()
  const finish = async (value: string): Promise<string> => {
    const { body } = await api.call('PUT', '/enqueue?type=noop')
    const [lease] = await worker.claim(1, 10_000)
    await worker.complete(lease as never, { value: { json: value } })
    return body['Work ID']
  }
  // More than what the system takes in for a client that does not read.
  let first = ''
  for (let index = 0; index < 12; index += 1) first = await finish('x'.repeat(900_000))
  const second = await finish('small')
  const hangUp = await pipeline(
    api,
    [12, 1].map(top => post(`/pullCompleted?top=${top}&waitMs=60000`)),
  )
  const isLeased = async (workId: string): Promise<boolean> =>
    (await api.call('GET', `/jobs/${workId}`)).body.collection !== 'uncollected'
  await until(async () => (await isLeased(first)) && (await isLeased(second)))
  await hangUp()
  const again: string[] = []
  await until(async () => {
    const { body } = await api.call('POST', '/pullCompleted?top=10')
    for (const entry of body) again.push(entry['Work ID'])
    return again.includes(first) && again.includes(second)
  })
  t.equal(again.length, 13, 'all of them were broken off, or never sent')
})

t.test('what was sent whole is not handed out again, though the next reply fills the connection', async t => {
  const api = await startTestApi(t, { MUSTER_INLINE_BYTES: '1000000' })
  const worker = api.worker()
  await worker.heartbeat()
  for (let index = 0; index < 24; index += 1) {
    await api.call('PUT', '/enqueue?type=noop')
    const [lease] = await worker.claim(1, 10_000)
    await worker.complete(lease as never, { value: { json: 'x'.repeat(900_000) } })
  }
  const client = connect(Number(new URL(api.url).port), '127.0.0.1')
  client.write(times(2, post('/pullCompleted?top=12')).join(''))
  client.write('GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  t.equal((await text(client)).match(/"Work ID"/g)?.length, 24)
  await until(async () => (await api.call('GET', '/status')).body.Uncollected === 0)
  t.same((await api.call('POST', '/pullCompleted?top=100')).body, [])
})

t.test('a job that comes after all have gone waits for a worker that is there', async t => {
  const api = await startTestApi(t)
  const worker = api.worker()
  await worker.heartbeat()
  const claim = { workerId: worker.workerId, queue: 'default', max: 1, waitMs: 20_000 }
  const hangUp = await pipeline(api, times(3, post('/workers/claim', claim)))
  await hangUp()
  const { body } = await api.call('PUT', '/enqueue?type=noop')
  const [lease] = await worker.claim(1, 10_000)
  t.equal(lease?.workId, body['Work ID'])
  t.match((await api.call('GET', `/jobs/${body['Work ID']}`)).body, { lostLeases: 0, state: 'running' })
})

t.test('requests that were under way leave with their connection', async t => {
  const api = await startTestApi(t, { MUSTER_MAX_REQUESTS_PER_CALLER: '20' })
  for (let round = 0; round < 5; round += 1) {
    const hangUp = await pipeline(api, [
      ...times(8, post('/pullCompleted?top=1&waitMs=60000')),
      ...times(7, get('/status')),
    ])
    await hangUp()
    const replies = await Promise.all(times(15, '/status').map(path => api.call('GET', path)))
    t.same([...new Set(replies.map(({ status }) => status))], [200], `round ${round}`)
  }
})

t.test('all are answered, in order, when the client stays', async t => {
  const api = await startTestApi(t)
  const client = connect(Number(new URL(api.url).port), '127.0.0.1')
  const paths = ['/status', '/types', '/nothing', '/livez']
  client.write([post('/pullCompleted?top=1&waitMs=100'), ...paths.map(get)].join(''))
  client.write(`GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
  const replies = (await text(client)).match(/HTTP\/1\.1 \d+/g)
  t.same(
    replies,
    [200, 200, 200, 404, 200, 200].map(status => `HTTP/1.1 ${status}`),
  )
})
