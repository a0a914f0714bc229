/** What needs no key: everybody may ask for it, so it must cost next to nothing, also when nobody reads the replies. */
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import t from 'tap'
import { routeRoles } from '../../src/access/roles.ts'
import { strangersRequests } from '../../src/api/plugins/admission.ts'
import { startTestApi, type TestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

const below = [
  '/docs/',
  '/docs/api',
  '/docs/js/scalar.js',
  '/docs/openapi.json',
  '/docs/openapi.yaml',
  '/docs/errors',
  '/docs/access',
]
const open = Object.entries(routeRoles)
  .filter(([route, rule]) => 'open' in rule && route.startsWith('GET '))
  .map(([route]) => route.slice(4))

/** The sockets of the server. */
function follow(api: TestApi): Set<Socket> {
  const sockets = new Set<Socket>()
  api.app.server.on('connection', socket => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  return sockets
}

const ask = (api: TestApi, path: string): Socket => {
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
  socket.on('error', () => undefined)
  socket.pause()
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n`)
  return socket
}

t.test('a reply that nobody reads holds at most 64 KiB', async t => {
  const api = await startTestApi(t)
  const sockets = follow(api)
  for (const path of [...open, ...below]) {
    await fetch(api.url + path)
    const clients = Array.from({ length: 40 }, () => ask(api, path))
    const served = (): Socket[] => [...sockets].filter(({ bytesWritten }) => bytesWritten > 0)
    let last = -1
    // All have begun, and nothing more goes out: the readers' side is full.
    await until(async () => {
      const before = last
      last = served().reduce((sum, { bytesWritten }) => sum + bytesWritten, 0)
      return served().length >= 40 && last === before
    })
    const held = Math.max(...served().map(({ writableLength }) => writableLength))
    t.ok(held <= 64 * 1024, `${path} holds ${held}`)
    for (const client of clients) client.destroy()
    await until(async () => sockets.size < 10)
  }
})

t.test('it is the same bytes for everybody: made once, compressed, known by its tag', async t => {
  const api = await startTestApi(t)
  const get = async (path: string, headers: Record<string, string> = {}) => {
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
    socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${lines.join('')}\r\n`)
    socket.setEncoding('latin1')
    const [head = '', ...rest] = (await text(socket)).split('\r\n\r\n')
    return { head, body: Buffer.from(rest.join('\r\n\r\n'), 'latin1') }
  }
  for (const path of ['/docs/js/scalar.js', '/docs/openapi.json', '/docs/errors']) {
    const plain = await get(path)
    t.match(plain.head, /^HTTP\/1\.1 200.*etag: "[\w-]+-identity".*/is)
    t.match(plain.head, /cache-control: public/i)
    const br = await get(path, { 'Accept-Encoding': 'gzip;q=0.5, br' })
    t.match(br.head, /content-encoding: br/i)
    t.strictSame(brotliDecompressSync(br.body), plain.body)
    t.ok(br.body.length < plain.body.length / 2, 'much less to send')
    t.strictSame(gunzipSync((await get(path, { 'Accept-Encoding': 'gzip, br;q=0' })).body), plain.body)
    const [, tag = ''] = /etag: ("[^"]+")/i.exec(plain.head) ?? []
    t.match((await get(path, { 'If-None-Match': tag })).head, /^HTTP\/1\.1 304/)
  }
})

t.test('an address without a key has few requests under way; who has one goes on', async t => {
  const api = await startTestApi(t)
  await fetch(`${api.url}/docs/js/scalar.js`)
  const clients = Array.from({ length: strangersRequests }, () => ask(api, '/docs/js/scalar.js'))
  t.teardown(() => clients.forEach(client => void client.destroy()))
  await until(async () => (await api.call('GET', '/docs/openapi.json')).status === 429)
  const refused = await api.call('GET', '/docs/openapi.json')
  t.match(refused, { status: 429, body: { code: 'too_many_requests' } })
  t.equal(refused.headers.get('retry-after'), '1')
  t.equal((await api.call('GET', '/status')).status, 200)
  for (const path of ['/health/live', '/health/ready', '/livez'])
    t.equal((await api.call('GET', path)).status, 200, `${path}: the node still looks alive from there`)
  for (const client of clients) client.destroy()
  await until(async () => (await api.call('GET', '/docs/openapi.json')).status === 200)
})

t.test('the documents are pages', async t => {
  const api = await startTestApi(t)
  t.match((await api.call('GET', '/docs/errors')).body.toString(), /<a id="json_too_deep"><\/a>/)
  t.match((await api.call('GET', '/docs/access')).body.toString(), /<h1>Access<\/h1>/)
  t.equal((await api.call('GET', '/docs/nothing')).status, 404)
  t.equal((await api.call('GET', '/docs/..%2fREADME')).status, 404)
})

t.test('replies are for who asked, and browsers only show them', async t => {
  const api = await startTestApi(t)
  const { headers } = await api.call('GET', '/status', { headers: { 'request-id': 'my-own-id-1' } })
  t.equal(headers.get('cache-control'), 'no-store')
  t.equal(headers.get('x-content-type-options'), 'nosniff')
  t.equal(headers.get('x-frame-options'), 'DENY')
  t.equal(headers.get('referrer-policy'), 'no-referrer')
  t.match(headers.get('content-security-policy'), /default-src 'none'/)
  t.equal(headers.get('request-id'), 'my-own-id-1')
  t.equal(headers.get('strict-transport-security'), null)
  const other = await api.call('GET', '/nothing', { headers: { 'request-id': 'no good' } })
  t.match(other.headers.get('request-id'), /^[0-9a-f]{12}-[0-9a-z]+$/)
  t.equal(other.body.instance, other.headers.get('request-id'))
  const csp = (await api.call('GET', '/docs/api')).headers.get('content-security-policy')
  t.match(csp, /script-src 'self' 'sha256-[^']+'; style-src/)
})
