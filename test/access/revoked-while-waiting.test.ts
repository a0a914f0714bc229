/** A request may wait for longer than its key is good: it is given nothing then. */
import t from 'tap'
import { type Reply, startTestApi, type TestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

const operatorKey = 'o'.repeat(40)
const bearer = (key: string) => ({ headers: { authorization: `Bearer ${key}` } })
const described = { workerId: 'w1', queue: 'default', slots: 1, types: ['noop'] }

/** What the operator does, with a worker of its own key. */
function makeOperator(api: TestApi) {
  const call = async (method: string, path: string, json?: unknown): Promise<Reply> =>
    await api.call(method, path, { ...bearer(operatorKey), json })
  return {
    call,
    put: async (): Promise<string> =>
      (await api.call('PUT', '/enqueue?type=noop', bearer(operatorKey))).body['Work ID'] as string,
    /** The request has come in, and waits. */
    begun: () => new Promise(resolve => api.app.server.once('request', () => setImmediate(resolve))),
  }
}

t.test('a key that is revoked or runs out while its request waits is given nothing', async t => {
  const api = await startTestApi(t, { MUSTER_OPERATOR_KEY: operatorKey })
  const operator = makeOperator(api)
  const { key: workKey } = await api.access.keys.create({ name: 'work', roles: ['work'] })
  const worker = async (path: string, json: object): Promise<Reply> =>
    await api.call('POST', path, { ...bearer(workKey), json })
  await worker('/workers/heartbeat', { worker: described, state: 'ready', leases: [] })
  const finish = async (): Promise<string> => {
    const workId = await operator.put()
    const { jobs } = (await worker('/workers/claim', { workerId: 'w1', queue: 'default', max: 1, waitMs: 20_000 })).body
    t.equal(jobs[0].workId, workId)
    const results = [{ workId, token: jobs[0].token, type: 'noop', durationMs: 1, value: { json: 'secret' } }]
    await worker('/workers/complete', { workerId: 'w1', queue: 'default', results })
    return workId
  }

  for (const query of ['', '&leaseMs=60000']) {
    const { key, id } = await api.access.keys.create({ name: 'collect', roles: ['collect'] })
    const begun = operator.begun()
    const waiting = api.call('POST', `/pullCompleted?top=1&waitMs=60000${query}`, bearer(key))
    await begun
    await api.access.keys.revoke(id)
    const workId = await finish()
    t.match(await waiting, { status: 401, body: { code: 'unauthenticated' } })
    const { body } = await operator.call('POST', '/pullCompleted?top=1&waitMs=60000')
    t.match(body, [{ 'Work ID': workId, Value: 'secret' }], 'it is there for the next one')
  }

  const short = await api.access.keys.create({ name: 'short', roles: ['collect'], expiresInMs: 3000 })
  const asked = operator.begun()
  const tooLate = api.call('POST', '/pullCompleted?top=1&waitMs=60000', bearer(short.key))
  await asked
  t.type(short.expiresAt, 'number')
  await until(() => Date.now() > (short.expiresAt ?? Number.POSITIVE_INFINITY))
  const late = await finish()
  t.match(await tooLate, { status: 401, body: { code: 'unauthenticated' } })
  t.match((await operator.call('POST', '/pullCompleted?top=1&waitMs=60000')).body, [{ 'Work ID': late }])

  const { key: otherKey, id: otherId } = await api.access.keys.create({ name: 'other', roles: ['work'] })
  const other = async (path: string, json: object): Promise<Reply> =>
    await api.call('POST', path, { ...bearer(otherKey), json })
  const described2 = { ...described, workerId: 'w2' }
  const beat = { worker: described2, state: 'ready', leases: [] }
  await other('/workers/heartbeat', beat)
  const beating = operator.begun()
  const heartbeat = other('/workers/heartbeat', { ...beat, waitMs: 6000 })
  await beating
  const begun = operator.begun()
  const waiting = other('/workers/claim', { workerId: 'w2', queue: 'default', max: 1, waitMs: 20_000 })
  await begun
  await api.access.keys.revoke(otherId)
  t.equal((await other('/workers/heartbeat', beat)).status, 401)
  const workId = await operator.put()
  t.match(await waiting, { status: 401, body: { code: 'unauthenticated' } })
  t.match(await heartbeat, { status: 401, body: { code: 'unauthenticated' } })
  const claim = { workerId: 'w1', queue: 'default', max: 1, waitMs: 20_000 }
  t.equal((await worker('/workers/claim', claim)).body.jobs[0].workId, workId, 'the job went back')
  t.match((await operator.call('GET', `/jobs/${workId}`)).body, { attemptsMade: 0, lostLeases: 0 })
})

t.test('who was let in while the node was open is not, once there is a key', async t => {
  const api = await startTestApi(t)
  const worker = api.worker()
  await worker.heartbeat()
  const put = await api.call('PUT', '/enqueue?type=noop')
  const [lease] = await worker.claim()
  const begun = new Promise(resolve => api.app.server.once('request', () => setImmediate(resolve)))
  const waiting = api.call('POST', '/pullCompleted?top=1&waitMs=60000')
  await begun
  const { key } = await api.access.keys.create({ name: 'first', roles: ['collect'] })
  await api.jobs
    .of('default')
    .completions.complete(
      { workerId: 'w1', types: [] },
      [{ workId: lease?.workId ?? '', token: lease?.token ?? '', durationMs: 1, value: { json: 1 } }],
      0,
    )
  t.equal((await waiting).status, 401)
  const { body } = await api.call('POST', '/pullCompleted?top=1&waitMs=60000', bearer(key))
  t.match(body, [{ 'Work ID': put.body['Work ID'] }])
})
