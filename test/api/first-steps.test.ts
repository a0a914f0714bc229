/** What somebody tries first: the root, the types, POST instead of PUT, the usual names of health checks. */
import t from 'tap'
import { startTestApi } from '../support/api.ts'

t.test('the root leads on', async t => {
  const api = await startTestApi(t)
  const page = await fetch(`${api.url}/`, { headers: { accept: 'text/html,*/*' }, redirect: 'manual' })
  t.equal(page.status, 302)
  t.equal(page.headers.get('location'), '/docs')
  const { status, body } = await api.call('GET', '/')
  t.equal(status, 200)
  for (const path of Object.values(body.links as Record<string, string>))
    t.equal((await api.call('GET', path)).status, 200, path)
})

t.test('types are listed with what they take, and each example is right', async t => {
  const api = await startTestApi(t)
  const { body } = await api.call('GET', '/types')
  const types = body.types as { type: string; source: string; description: string; payload?: object; example: string }[]
  t.strictSame(
    types.map(({ type }) => type),
    ['countToThree', 'noop', 'primes', 'sha512', 'sleep'],
  )
  for (const { type, source, description, example } of types) {
    t.equal(source, 'built-in')
    t.ok(description)
    if (type === 'sha512') continue
    const [, url = ''] = /-X PUT '([^']+)'/.exec(example) ?? []
    const [, data] = / -d '([^']+)'/.exec(example) ?? []
    const path = url.replace(/^https?:\/\/[^/]+/, '')
    const json = data === undefined ? {} : { json: JSON.parse(data) }
    t.equal((await api.call('PUT', path, json)).status, 200, example)
  }
})

t.test('POST /enqueue does what PUT does', async t => {
  const api = await startTestApi(t)
  const headers = { 'content-type': 'application/octet-stream', 'idempotency-key': 'first' }
  const [put, post] = [
    await api.call('PUT', '/enqueue?iterations=1', { headers, body: 'x' }),
    await api.call('POST', '/enqueue?iterations=1', { headers, body: 'x' }),
  ]
  t.match(put, { status: 200, body: { 'Work ID': String } })
  t.strictSame(post?.body, put?.body, 'one job')
  const wrong = await api.call('POST', '/enqueue?nonsense=1')
  t.match(wrong, { status: 400, body: { code: 'parameter_unknown' } })
})

t.test('health by its usual names', async t => {
  const api = await startTestApi(t)
  for (const path of ['/livez', '/healthz', '/readyz'])
    t.match(await api.call('GET', path), { status: 200, body: { status: 'ok' } }, path)
})
