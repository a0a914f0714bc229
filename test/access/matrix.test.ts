/** Every route × every role, and all who should stay outside. The routes are those that the app has, not a list of the test. */
import { readFile } from 'node:fs/promises'
import { fastify } from 'fastify'
import t from 'tap'
import { keyText } from '../../src/access/api-key.ts'
import { KeyStore } from '../../src/access/key-store.ts'
import { type Role, type RouteRule, roles, routeRoles, routeTable } from '../../src/access/roles.ts'
import { addAccess } from '../../src/api/plugins/access.ts'
import { Journal } from '../../src/fleet/journal/journal.ts'
import { LocalWrites } from '../../src/redis/writes/durable-writes.ts'
import { type Reply, startTestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

const operatorKey = `operator-${'k'.repeat(32)}`
const joinSecret = `join-${'s'.repeat(32)}`
const api = await startTestApi(t, {
  MUSTER_OPERATOR_KEY: operatorKey,
  MUSTER_WORKER_JOIN_SECRET: joinSecret,
  MUSTER_MAX_FAILED_LOGINS: '1000000',
})
const document = (api.app as unknown as { swagger(): { paths: Record<string, Record<string, unknown>> } }).swagger()
/** Other names of documented ones. */
const aliases = ['POST /enqueue', 'GET /livez', 'GET /healthz', 'GET /readyz'].map(route => {
  const [method = '', path = ''] = route.split(' ')
  return { method, route, path }
})
const routes = Object.entries(document.paths)
  .flatMap(([path, methods]) =>
    Object.keys(methods).map(method => ({
      method: method.toUpperCase(),
      route: `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`,
      path,
    })),
  )
  .concat(aliases)
const guarded = routes.filter(({ route }) => !('open' in (routeRoles[route] ?? { open: '' })))
const ruleOf = (route: string): RouteRule => routeRoles[route] as RouteRule

const workId = `w${'0'.repeat(21)}`
const leaseToken = 'w1/x'
/** A value for each parameter in a path; all of the queue `default`. */
const values: Record<string, string> = { workId, queue: 'default', instanceId: 'i-1', decisionId: '1-1', keyId: 'A' }
const queries: Record<string, string> = {
  'PUT /enqueue': '?type=noop',
  'POST /enqueue': '?type=noop',
  'POST /pullCompleted': '?top=1',
  'GET /fleet/decisions': '?queue=default',
  'GET /jobs': '?queue=default',
  'PUT /workers/results/:workId': `?token=${leaseToken}&kind=json`,
  'GET /workers/payloads/:workId': `?token=${leaseToken}`,
  'GET /workers/checkpoints/:workId': `?token=${leaseToken}`,
  'PUT /workers/checkpoints/:workId': `?token=${leaseToken}`,
}
const lease = { workId, token: leaseToken }
const who = { workerId: 'w1', queue: 'default' }
const bodies: Record<string, unknown> = {
  'POST /pullCompleted/ack': { workIds: [workId] },
  'POST /fleet/spawn': {},
  'POST /workers/heartbeat': { worker: { ...who, slots: 1, types: [] }, state: 'ready', leases: [] },
  'POST /workers/claim': { ...who, max: 1 },
  'POST /workers/complete': { ...who, results: [{ ...lease, type: 'noop', durationMs: 1 }] },
  'POST /workers/return': { ...who, jobs: [lease] },
  'POST /keys': { name: 'made by the matrix', roles: ['read'] },
}
/** Sent as they are. */
const texts: Record<string, string> = {
  'PUT /handlers': 'export const a = { type: "a", handle() {} }',
}

const bearer = (key: string | undefined): Record<string, string> =>
  key === undefined ? {} : { authorization: `Bearer ${key}` }
/** @param workerId a key speaks for workers that it introduced itself, and for their leases */
const call = async (
  { method, route, path }: (typeof routes)[number],
  key: string | undefined,
  workerId = who.workerId,
): Promise<Reply> =>
  await api.call(
    method,
    path.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? name) +
      (queries[route] ?? '').replace('w1/', `${workerId}/`),
    {
      headers: {
        ...bearer(key),
        ...((route.startsWith('PUT /workers') || route in texts) && { 'content-type': 'application/octet-stream' }),
      },
      ...(route in bodies && {
        json: JSON.parse(JSON.stringify(bodies[route]).replaceAll(/"w1(?=["/])/g, `"${workerId}`)),
      }),
      ...(route.startsWith('PUT /workers') && { body: 'x' }),
      ...(route in texts && { body: texts[route] }),
    },
  )

t.test('every route has an entry, and every entry a route', async t => {
  for (const { route } of routes) t.ok(routeRoles[route], route)
  const known = new Set([...routes.map(({ route }) => route), 'GET /docs'])
  for (const route of Object.keys(routeRoles)) t.ok(known.has(route), `${route} is a route`)
  const app = fastify()
  addAccess(app, api as never)
  t.throws(() => app.get('/nobody-thought-of-it', () => ''), /has no entry in src\/access\/roles\.ts/)
  t.ok((await readFile(new URL('../../docs/access.md', import.meta.url), 'utf8')).includes(routeTable()))
})

t.test('nobody gets in without a key that is good', async t => {
  const revoked = await api.access.keys.create({ name: 'revoked', roles })
  await api.access.keys.revoke(revoked.id)
  const expired = await api.access.keys.create({ name: 'expired', roles, expiresInMs: -1 })
  const good = await api.access.keys.create({ name: 'good', roles })
  const strangers: Record<string, string | undefined> = {
    none: undefined,
    unknown: keyText({ id: 'AAAAAAAAAA', secret: 'B'.repeat(32) }),
    revoked: revoked.key,
    expired: expired.key,
    'wrong secret': keyText({ id: good.id, secret: 'B'.repeat(32) }),
    'no key at all': 'x',
    'half an operator key': operatorKey.slice(0, -1),
    'the join secret': joinSecret,
    'a token that somebody made up': `mwt.${Buffer.from('["a","i-1","default",9e15]').toString('base64url')}.AAAA`,
  }
  for (const route of guarded) {
    for (const [name, key] of Object.entries(strangers)) {
      const { status, body, headers } = await call(route, key)
      t.equal(status, 401, `${route.route}: ${name}`)
      t.equal(body.code, 'unauthenticated')
      t.match(headers.get('www-authenticate'), /^Bearer/)
    }
  }
  t.match((await call(guarded[0] as never, expired.key)).body.detail, /expired/)
  t.equal((await api.call('GET', '/status', { headers: { authorization: `Basic ${good.key}` } })).status, 401)
  t.equal((await api.call('GET', '/status', { headers: { authorization: `bearer ${good.key}` } })).status, 200)
})

t.test('what is open is open to all', async t => {
  for (const path of [
    '/',
    '/livez',
    '/readyz',
    '/health/live',
    '/health/ready',
    '/docs/',
    '/docs/openapi.json',
    '/docs/errors',
  ])
    t.equal((await api.call('GET', path)).status, 200, path)
  t.equal((await api.call('GET', '/nothing')).status, 404)
  t.equal((await api.call('POST', '/status')).status, 405)
  t.equal((await fetch(`${api.url}/status`, { method: 'HEAD' })).status, 401, 'HEAD is GET')
})

t.test('each role may do what is its own, and nothing else', async t => {
  const keyOf = new Map<Role | 'operator', string>([['operator', operatorKey]])
  for (const role of roles) keyOf.set(role, (await api.access.keys.create({ name: role, roles: [role] })).key)
  for (const route of guarded) {
    for (const [role, key] of keyOf) {
      const may = ruleOf(route.route).roles.some(one => one === role || (role === 'operator' && one !== 'work'))
      const { status, body } = await call(route, key)
      if (may) t.notOk([401, 403].includes(status), `${route.route} as ${role} is let in (${status})`)
      else t.match({ status, body }, { status: 403, body: { code: 'forbidden' } }, `${route.route} as ${role}`)
    }
  }
  const refusal = await call(guarded.find(({ route }) => route === 'POST /keys') as never, keyOf.get('read'))
  t.match(refusal.body.detail, /takes the role "operate"; the key "read" has none/)
})

t.test('a key that is bound to queues acts only there', async t => {
  const other = (await api.access.keys.create({ name: 'other', roles, queues: ['images'] })).key
  const own = (await api.access.keys.create({ name: 'own', roles, queues: ['default'] })).key
  for (const route of guarded) {
    const { queue } = ruleOf(route.route)
    const [outside, inside] = [await call(route, other, 'w-other'), await call(route, own, 'w-own')]
    const passes =
      queue === 'filtered' ||
      ['GET /workers/bundle.tgz', 'GET /workers/handlers', 'GET /fleet/decisions/:decisionId'].includes(route.route)
    if (passes) t.not(outside.status, 403, `${route.route} shows what is its own`)
    else t.match(outside, { status: 403, body: { code: 'forbidden' } }, `${route.route} of another queue`)
    t.equal(inside.status === 403, queue === 'all', `${route.route} of its queue (${inside.status})`)
  }
  const as = (key: string) => ({ headers: bearer(key) })
  t.strictSame((await api.call('GET', '/queues', as(other))).body, { queues: [] })
  t.match((await api.call('GET', '/queues', as(own))).body.queues, [{ queue: 'default' }])
  t.equal((await api.call('GET', '/fleet', as(other))).body.pools.length, 0)
  await api.call('POST', '/queues/default/resume', as(own))
  t.equal((await api.call('PUT', '/enqueue?type=noop', as(own))).status, 200)
  t.ok((await api.call('GET', '/status', as(own))).body.Jobs > 0)
  t.equal((await api.call('GET', '/status', as(other))).body.Jobs, 0)
  t.equal((await api.call('GET', '/jobs', as(own))).status, 403, 'all queues are not its own')
  const decision = { queue: 'default', at: 1, desired: 1, reason: 'manual', explanation: '', actions: [] } as const
  await new Journal(api.redis).write(decision)
  const [{ id }] = (await api.call('GET', '/fleet/decisions?queue=default', as(own))).body.decisions
  t.equal((await api.call('GET', `/fleet/decisions/${id}`, as(own))).status, 200)
  t.equal((await api.call('GET', `/fleet/decisions/${id}`, as(other))).status, 403)
})

t.test('keys are made, shown without secrets, rotated with a grace, and revoked', async t => {
  const admin = { headers: bearer(operatorKey) }
  const call = async (method: string, path: string, json?: unknown): Promise<Reply> =>
    await api.call(method, path, { ...admin, ...(json !== undefined && { json }) })
  const made = await call('POST', '/keys', {
    name: 'ci',
    roles: ['submit', 'read'],
    queues: ['default'],
    expiresInMs: 60_000,
  })
  t.match(made, { status: 200, body: { name: 'ci', roles: ['submit', 'read'], queues: ['default'] } })
  const { keyId, key } = made.body
  t.match(key, new RegExp(`^muster_${keyId}_[0-9A-Za-z]{32}$`))
  const works = async (key: string): Promise<boolean> =>
    (await api.call('GET', '/status', { headers: bearer(key) })).status === 200
  t.ok(await works(key))
  const listed = await call('GET', '/keys')
  t.notMatch(JSON.stringify(listed.body), key.split('_')[2])
  t.match(
    listed.body.keys.find((one: { keyId: string }) => one.keyId === keyId),
    { name: 'ci', expiresAt: /T/ },
  )
  const stored = JSON.stringify(await api.redis.hgetall('{muster}:access:keys'))
  t.notMatch(stored, key.split('_')[2], 'Redis has no secret')

  const second = (await call('POST', `/keys/${keyId}/rotate`, { graceMs: 60_000 })).body.key
  t.ok((await works(key)) && (await works(second)), 'both for the grace')
  const third = (await call('POST', `/keys/${keyId}/rotate`)).body.key
  t.strictSame([await works(key), await works(second), await works(third)], [false, false, true], 'at once without one')
  t.equal((await call('DELETE', `/keys/${keyId}`)).status, 200)
  t.notOk(await works(third))
  t.match(await call('DELETE', `/keys/${keyId}`), { status: 404, body: { code: 'key_not_found' } })
  t.equal((await call('POST', `/keys/${keyId}/rotate`)).status, 404)
  t.equal((await call('POST', '/keys', { name: 'x', roles: ['root'] })).status, 400)
  t.equal((await call('POST', '/keys', { name: 'x', roles: ['read'], queues: ['no-such'] })).status, 404)
})

t.test('what operators do is in the audit log: who, what, to what, with which outcome', async t => {
  const admin = await api.access.keys.create({ name: 'alice', roles: ['operate', 'submit'] })
  const reader = await api.access.keys.create({ name: 'bob', roles: ['read'] })
  const as = (key: string) => ({ headers: bearer(key) })
  await api.call('POST', '/queues/default/pause', as(admin.key))
  await api.call('POST', '/queues/default/resume', as(admin.key))
  await api.call('POST', '/queues/default/pause', as(reader.key))
  await api.call('POST', '/fleet/spawn', { ...as(admin.key), json: { count: 2 } })
  await api.call('DELETE', `/jobs/${workId}`, as(admin.key))
  const made = await api.call('POST', '/keys', { ...as(admin.key), json: { name: 'new', roles: ['read'] } })
  const audit = async (path = '/audit') => (await api.call('GET', path, as(admin.key))).body
  const { entries } = await audit()
  const alices = entries.filter((entry: { who: { id: string } }) => entry.who.id === admin.id)
  t.match(alices, [
    { action: 'key.create', target: made.body.keyId, status: 200, details: { name: 'new', roles: ['read'] } },
    { action: 'job.cancel', target: workId, status: 404 },
    { action: 'fleet.spawn', target: 'default', status: 409, details: { count: 2 } },
    { action: 'queue.resume', target: 'default', status: 200 },
    {
      action: 'queue.pause',
      target: 'default',
      status: 200,
      ip: '127.0.0.1',
      who: { kind: 'key', name: 'alice' },
      requestId: /./,
    },
  ])
  t.notOk(
    entries.some((entry: { who: { id: string } }) => entry.who.id === reader.id),
    'a refusal pushes nothing out',
  )
  const page = await audit('/audit?limit=2')
  t.equal(page.entries.length, 2)
  t.strictSame((await audit(`/audit?limit=1&cursor=${page.nextCursor}`)).entries[0], entries[2])
  t.equal((await api.call('GET', '/audit?cursor=x', as(admin.key))).body.code, 'cursor_invalid')
})

t.test('a key that another process makes or takes away is known here within a moment', async t => {
  // Nobody rings: as if the notifier were lost.
  const store = new KeyStore({ redis: api.redis, announce: () => undefined, writes: new LocalWrites(api.redis) })
  const { id, key } = await store.create({ name: 'elsewhere', roles: ['read'] })
  const status = async (): Promise<number> => (await api.call('GET', '/status', { headers: bearer(key) })).status
  await until(async () => (await status()) === 200)
  await store.revoke(id)
  await until(async () => (await status()) === 401)
  t.pass('both times')
})

t.test(
  'without keys a node on loopback is open to programs, not to web pages; the first key closes it for good',
  async t => {
    const open = await startTestApi(t)
    t.equal((await open.call('POST', '/queues/default/pause')).status, 200)
    t.equal((await open.call('GET', '/status', { headers: bearer('mwt.of.yesterday') })).status, 200)
    const pages: Record<string, string>[] = [
      { 'sec-fetch-site': 'cross-site' },
      { host: 'evil.example:5000' },
      { host: '203.0.113.9' },
    ]
    for (const headers of pages) {
      const reply = await open.app.inject({ method: 'POST', url: '/queues/default/pause', headers })
      t.match(reply.json(), { code: 'forbidden', detail: /pages of other sites/ }, JSON.stringify(headers))
    }
    for (const host of ['localhost:5000', '127.0.0.1:5000', '[::1]:5000', 'muster.localhost'])
      t.equal((await open.app.inject({ url: '/status', headers: { host } })).statusCode, 200, host)
    const { id } = await open.access.keys.create({ name: 'first', roles: ['read'] })
    t.equal((await open.call('GET', '/status')).status, 401)
    await open.access.keys.revoke(id)
    await open.redis.flushall()
    await open.access.freshen()
    t.equal((await open.call('GET', '/status')).status, 401, 'whatever Redis forgets')
    t.match(open.access.mintFirstToken('i-a', 'default').token, /^mwt/, 'a new secret signs')
  },
)
