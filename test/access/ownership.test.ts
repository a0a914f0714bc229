/** What one key puts in is its own: another one neither meets it by its Idempotency-Key nor ends it. */
import t from 'tap'
import { signToken, verifyToken } from '../../src/access/worker-token.ts'
import { startApiOn, startTestApi } from '../support/api.ts'

const operatorKey = 'o'.repeat(40)
const environment = { MUSTER_OPERATOR_KEY: operatorKey }

t.test('an Idempotency-Key belongs to who sends it, on every node', async t => {
  const api = await startTestApi(t, environment)
  const other = await startApiOn(t, api.server, environment)
  const [one, two] = await Promise.all(
    ['one', 'two'].map(async name => (await api.access.keys.create({ name, roles: ['submit'] })).key),
  )
  const put = async (node: typeof api, key: string | undefined, body: string): Promise<string> => {
    const headers = {
      authorization: `Bearer ${key}`,
      'idempotency-key': 'invoice-99',
      'content-type': 'application/octet-stream',
    }
    const reply = await node.call('PUT', '/enqueue?type=noop', { headers, body })
    t.equal(reply.status, 200)
    return reply.body['Work ID']
  }
  const first = await put(api, one, 'a')
  t.equal(await put(other, one, 'a'), first, 'the same on another node')
  const second = await put(api, two, 'another payload')
  t.not(second, first)
  t.not(await put(api, operatorKey, 'a'), first)
  const { id } = (await api.access.keys.list()).find(({ name }) => name === 'one') as { id: string }
  const rotated = await api.access.keys.rotate(id, 0)
  t.equal(await put(api, rotated?.key, 'a'), first, 'a new secret is the same key')
})

t.test('a key that only submits cancels and reads what it put in, and nothing else', async t => {
  const api = await startTestApi(t, environment)
  const make = async (roles: readonly ['submit'] | readonly ['read']) => {
    const { key } = await api.access.keys.create({ name: roles[0], roles })
    return { headers: { authorization: `Bearer ${key}` } }
  }
  const [mine, theirs, reader] = [await make(['submit']), await make(['submit']), await make(['read'])]
  const put = async (options: typeof mine): Promise<string> =>
    (await api.call('PUT', '/enqueue?type=noop', { ...options, json: { payload: { secret: 1.0 } } })).body['Work ID']
  const path = `/jobs/${await put(mine)}`
  t.match(await api.call('DELETE', path, theirs), { status: 403, body: { code: 'forbidden' } })
  t.match(await api.call('GET', `${path}?include=payload`, theirs), { status: 403 })
  t.notHas((await api.call('GET', path, mine)).body, { payload: {} }, 'only when asked for')
  for (const who of [mine, reader])
    t.match((await api.call('GET', `${path}?include=payload`, who)).body, { payload: { json: { secret: 1 } } })
  t.equal((await api.call('GET', path, mine)).body.state, 'waiting')
  t.match(await api.call('DELETE', path, mine), { status: 200, body: { state: 'cancelled' } })
  t.equal((await api.call('DELETE', path, mine)).status, 200, 'twice is fine')
  t.equal((await api.call('DELETE', path, theirs)).status, 403)
  const operator = { headers: { authorization: `Bearer ${operatorKey}` } }
  t.equal((await api.call('DELETE', `/jobs/${await put(mine)}`, operator)).status, 200)
})

t.test('payloads are shown as they were sent', async t => {
  const api = await startTestApi(t, { MUSTER_INLINE_BYTES: '64' })
  const headers = { 'content-type': 'application/json' }
  const put = async (body: string, type = headers['content-type']): Promise<string> =>
    (await api.call('PUT', '/enqueue?type=noop', { headers: { 'content-type': type }, body })).body['Work ID']
  const look = async (workId: string) => await (await fetch(`${api.url}/jobs/${workId}?include=payload`)).text()
  t.match(await look(await put('{"payload":[1970670598291982290]}')), '"payload":{"json":[1970670598291982290]}')
  t.match(await look(await put('hi', 'application/octet-stream')), '"payload":{"base64":"aGk="}')
  t.match(
    await look(await put('x'.repeat(100), 'application/octet-stream')),
    /"blob":\{"kind":"bytes","bytes":100,"sha256"/,
  )
})

t.test('a key is bound to some queues or to all, and its name is what it looks like', async t => {
  const api = await startTestApi(t)
  const make = async (json: object) => await api.call('POST', '/keys', { json: { roles: ['read'], ...json } })
  t.match(await make({ name: 'x', queues: [] }), { status: 400 })
  for (const name of ['a\u202eb', 'a\u2028b', 'a\u200bb', 'a\nb', '', ' '])
    t.match(await make({ name }), { status: 400 }, encodeURIComponent(name))
  t.equal((await make({ name: 'Größe 漢字 🙂' })).status, 200)
})

t.test('a token has one spelling', async t => {
  const secret = { id: 'a', secret: Buffer.alloc(32, 1) }
  const token = signToken({ instanceId: 'i-1', queue: 'default', expiresAt: 1000 }, secret)
  t.match(verifyToken(token, [secret], 0), { verdict: 'good' })
  for (const other of [`${token}=`, `${token}\n`, token.replace(/\./, '.='), `${token.slice(0, -1)}/`])
    t.match(verifyToken(other, [secret], 0), { verdict: 'wrong' }, JSON.stringify(other))
})

t.test('an open node answers its own pages only, whatever the browser tells', async t => {
  const api = await startTestApi(t)
  const from = async (origin: string) => (await api.call('GET', '/status', { headers: { origin } })).status
  t.equal(await from(api.url), 200)
  for (const origin of ['https://elsewhere.example', 'null', 'http://127.0.0.1:1', api.url.replace('http', 'https')])
    t.equal(await from(origin), 403, origin)
})
