/** In a full Redis rights still end: instances, keys, the secret of worker tokens; workers join, and the audit log has no hole. */
import t from 'tap'
import { FirstUse } from '../../src/access/join-proofs.ts'
import { startApiOn, startTestApi, type TestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

const environment = { MUSTER_OPERATOR_KEY: 'o'.repeat(40) }
const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } })
const operator = as(environment.MUSTER_OPERATOR_KEY)

/** Resolves when this node has heard that the token is good for nothing. */
const isRefused = (node: TestApi, token: string): Promise<void> =>
  until(async () => (await node.call('GET', '/workers/handlers', as(token))).status === 401)

t.test('what ends a right has room in a full Redis', async t => {
  const api = await startTestApi(t, environment)
  const other = await startApiOn(t, api.server, environment)
  const { access, redis } = api
  const { token } = access.mintFirstToken('i-a', 'default')
  const { token: signedBefore } = access.mintFirstToken('i-b', 'default')
  const rotated = await access.keys.create({ name: 'rotated', roles: ['submit'] })
  const revoked = await access.keys.create({ name: 'revoked', roles: ['submit'] })
  const enqueue = (node: typeof api, key: string) => node.call('PUT', '/enqueue?type=noop', as(key))
  t.equal((await enqueue(other, rotated.key)).status, 200)

  for (const one of [token, signedBefore]) t.not((await other.call('GET', '/workers/handlers', as(one))).status, 401)

  await redis.config('SET', 'maxmemory', '1mb')
  await t.rejects(redis.set('x', 'y'), /OOM/, 'it takes nothing more')

  await access.endInstances(['i-a'])
  await isRefused(other, token)

  const reply = await api.call('POST', `/keys/${rotated.id}/rotate`, { ...operator, json: { graceMs: 0 } })
  t.equal(reply.status, 200, JSON.stringify(reply.body))
  // As soon as the other node has heard of it.
  await until(async () => (await enqueue(other, rotated.key)).status === 401)
  t.equal((await api.call('DELETE', `/keys/${revoked.id}`, operator)).status, 200)
  await until(async () => (await enqueue(other, revoked.key)).status === 401)

  await access.rotateSigning(0)
  await isRefused(other, signedBefore)

  t.equal(await new FirstUse(redis, 60_000).join('i-new', 'word'), 'first', 'new workers make room')
  await api.fleet.registry.rememberLaunchedTypes('default', ['noop'])
  t.strictSame(await api.fleet.registry.launchedTypes('default'), ['noop'])
  const actions = (await access.audit.read({ limit: 10 }))?.entries.map(({ action }) => action)
  t.match(actions, ['key.revoke', 'key.rotate'], 'the audit log goes on')
})

t.test('the end of an instance that could not be written is written by the next try', async t => {
  const api = await startTestApi(t, environment)
  const { access, redis } = api
  const { token } = access.mintFirstToken('i-a', 'default')
  await redis.set('{muster}:access:ended', 'a value that takes no members')
  await t.rejects(access.endInstances(['i-a']), /WRONGTYPE/)
  await redis.del('{muster}:access:ended')
  await access.endInstances(['i-a'])
  const other = await startApiOn(t, api.server, environment)
  await t.rejects(async () => await other.access.identify(`Bearer ${token}`), { message: /i-a has ended/ })
})
