/** Worker tokens: bound to their instance and worker, renewed by the heartbeat, dead with the instance; and how they are got. */
import t, { type Test } from 'tap'
import { Access } from '../../src/access/access.ts'
import type { HeartbeatReply, Lease } from '../../src/contract/worker-protocol.ts'
import { Problem } from '../../src/errors.ts'
import { withEndNotifications } from '../../src/fleet/providers/end-notifications.ts'
import { Notifier } from '../../src/notifier.ts'
import { type Reply, startTestApi } from '../support/api.ts'
import { MemoryProvider } from '../support/memory-provider.ts'
import { startTestRedis } from '../support/redis.ts'

const operatorKey = `operator-${'k'.repeat(32)}`
const joinSecret = `join-${'s'.repeat(32)}`
const instances = new Map([
  ['i-a', 'default'],
  ['i-b', 'default'],
  ['i-c', 'default'],
])

const start = async (t: Test) => {
  const api = await startTestApi(t, { MUSTER_OPERATOR_KEY: operatorKey, MUSTER_WORKER_JOIN_SECRET: joinSecret })
  const as = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })
  const post = async (path: string, token: string, json: unknown): Promise<Reply> =>
    await api.call('POST', path, { ...as(token), json })
  const heartbeat = async (token: string, workerId: string, instanceId: string, leases: readonly Lease[] = []) =>
    await post('/workers/heartbeat', token, {
      worker: { workerId, instanceId, queue: 'default', slots: 1, types: ['noop'] },
      state: 'ready',
      leases: leases.map(({ workId, token }) => ({ workId, token })),
    })
  /** A worker that has said hello. */
  const worker = async (workerId: string, instanceId: string): Promise<string> => {
    const first = api.access.mintFirstToken(instanceId, 'default').token
    const { token } = (await heartbeat(first, workerId, instanceId)).body as HeartbeatReply
    return token ?? ''
  }
  const enqueue = async (): Promise<string> =>
    (await api.call('PUT', '/enqueue?type=noop', as(operatorKey))).body['Work ID']
  const claim = async (token: string, workerId: string): Promise<Reply> =>
    await post('/workers/claim', token, { workerId, queue: 'default', max: 1 })
  const complete = async (token: string, workerId: string, { workId, token: lease }: Lease): Promise<Reply> => {
    const results = [{ workId, token: lease, type: 'noop', durationMs: 1, value: { json: 1 } }]
    return await post('/workers/complete', token, { workerId, queue: 'default', results })
  }
  return { api, as, post, heartbeat, worker, enqueue, claim, complete }
}

t.test('the first token says hello, the next one works, and for its own worker alone', async t => {
  const { api, as, post, heartbeat, worker, enqueue, claim, complete } = await start(t)
  const first = api.access.mintFirstToken('i-a', 'default').token
  t.match((await claim(first, 'wa')).body, { code: 'forbidden', detail: /first token of an instance/ })
  t.equal((await heartbeat(first, 'wa', 'i-b')).status, 403, 'another instance')
  t.equal((await heartbeat(first, 'wa', undefined as never)).status, 403, 'no instance')
  const reply = await heartbeat(first, 'wa', 'i-a')
  t.match(reply, { status: 200, body: { token: /^mwt\./ } })
  const a = reply.body.token
  t.notOk((await heartbeat(a, 'wa', 'i-a')).body.token, 'a fresh token is not renewed')

  await enqueue()
  const [lease] = (await claim(a, 'wa')).body.jobs as Lease[]
  t.ok(lease)
  if (lease === undefined) return
  const b = await worker('wb', 'i-b')
  const refused: Record<string, Reply> = {
    'claims for another': await claim(b, 'wa'),
    "completes another's job under its own name": await complete(b, 'wb', lease),
    "completes another's job under that one's name": await complete(b, 'wa', lease),
    "returns another's job": await post('/workers/return', b, { workerId: 'wb', queue: 'default', jobs: [lease] }),
    "extends another's lease": await heartbeat(b, 'wb', 'i-b', [lease]),
    'speaks as another worker': await heartbeat(b, 'wa', 'i-b'),
    'takes over a worker with a first token': await heartbeat(
      api.access.mintFirstToken('i-b', 'default').token,
      'wa',
      'i-b',
    ),
    "reads another's payload": await api.call('GET', `/workers/payloads/${lease.workId}?token=${lease.token}`, as(b)),
    "leaves another's checkpoint": await api.call(
      'PUT',
      `/workers/checkpoints/${lease.workId}?token=${encodeURIComponent(lease.token)}`,
      { headers: { ...as(b).headers, 'content-type': 'application/octet-stream' }, body: 'x' },
    ),
    "uploads another's result": await api.call(
      'PUT',
      `/workers/results/${lease.workId}?token=${encodeURIComponent(lease.token)}&kind=json`,
      { headers: { ...as(b).headers, 'content-type': 'application/octet-stream' }, body: '1' },
    ),
    'submits a job': await api.call('PUT', '/enqueue?type=noop', as(b)),
    'serves another queue': await post('/workers/claim', b, { workerId: 'wb', queue: 'other', max: 1 }),
  }
  for (const [what, { status, body }] of Object.entries(refused))
    t.match({ status, body }, { status: 403, body: { code: 'forbidden' } }, what)
  t.match((await complete(a, 'wa', lease)).body.results, [{ outcome: 'succeeded' }], 'its own goes on')
})

t.test(
  'a cordoned worker finishes what it holds and claims nothing; an ended instance is refused everywhere',
  async t => {
    const { api, as, heartbeat, worker, enqueue, claim, complete } = await start(t)
    const token = await worker('w', 'i-a')
    await enqueue()
    const [lease] = (await claim(token, 'w')).body.jobs as [Lease]
    await api.call('POST', '/fleet/instances/w/terminate', as(operatorKey))
    t.match(await claim(token, 'w'), { status: 409, body: { code: 'drained_worker' } })
    t.match((await heartbeat(token, 'w', 'i-a', [lease])).body, { drain: true, stop: [] })
    t.match((await complete(token, 'w', lease)).body, { results: [{ outcome: 'succeeded' }] })
    await api.access.endInstances(['i-a'])
    for (const reply of [
      await heartbeat(token, 'w', 'i-a'),
      await claim(token, 'w'),
      await complete(token, 'w', lease),
    ])
      t.match(reply, { status: 401, body: { code: 'unauthenticated', detail: /i-a has ended/ } })
    t.equal((await api.call('GET', '/workers/bundle.tgz', as(token))).status, 401)
  },
)

t.test('tokens run out, are renewed at half of their time, and end with the secret that signed them', async t => {
  const redis = await (await startTestRedis(t)).client()
  let now = 1_000_000_000_000
  const open = async (): Promise<Access> => {
    const options = { redis, operatorKey, joinSecret, workerTokenTtlMs: 60_000, isPrivate: true, clock: () => now }
    const access = new Access({ ...options, notifier: new Notifier() })
    await access.start()
    t.teardown(() => access.stop())
    return access
  }
  const [one, other] = [await open(), await open()]
  const bearer = (token = ''): string => `Bearer ${token}`
  const { token } = one.mintFirstToken('i-a', 'images')
  const caller = await other.identify(bearer(token))
  t.match(caller, { kind: 'worker', id: 'i-a', worker: { instanceId: 'i-a', workerId: undefined } }, 'on any node')
  t.strictSame([...(caller.queues ?? [])], ['images'])
  const bound = other.renew(caller, 'w')
  now += 20_000
  t.equal(one.renew(await one.identify(bearer(bound)), 'w'), undefined)
  now += 20_000
  const renewed = one.renew(await one.identify(bearer(bound)), 'w')
  t.ok(renewed)
  now += 20_001
  t.throws(() => one.identify(bearer(token)), { code: 'unauthenticated', message: /expired/ })
  t.match(await other.identify(bearer(renewed)), { worker: { workerId: 'w' } })

  const forged = (renewed ?? '').split('.')
  forged[1] = Buffer.from(
    Buffer.from(forged[1] ?? '', 'base64url')
      .toString()
      .replace('i-a', 'i-b'),
  ).toString('base64url')
  await t.rejects(async () => await one.identify(bearer(forged.join('.'))), Problem)

  await one.rotateSigning(10_000)
  await other.freshen()
  t.ok(await other.identify(bearer(renewed)), 'the old one for the grace')
  await one.freshen()
  const young = one.renew(caller, 'w')
  now += 10_001
  await t.rejects(async () => await one.identify(bearer(renewed)), Problem, 'then no more')
  t.ok(await other.identify(bearer(young)), 'the new one goes on')
  await one.rotateSigning(0)
  await one.freshen()
  const { token: newest } = one.mintFirstToken('i-c', 'images')
  t.ok(await other.identify(bearer(newest)), 'a secret that a node does not know yet is looked up')

  await one.endInstances(['i-c'])
  now += 3 * 3_600_000
  await one.endInstances(['i-z'])
  t.strictSame(
    await redis.zrange('{muster}:access:ended', '0', '-1'),
    ['i-z'],
    'forgotten when no token can live any more',
  )
})

t.test('an instance joins with the secret, if this fleet launched it for that queue', async t => {
  const { api, as, heartbeat } = await start(t)
  const { fleet } = api
  // Which instances there are is the provider's to say; there is none here.
  Object.assign(fleet, {
    instance: async (id: string) => (instances.has(id) ? { id, pool: instances.get(id) } : undefined),
  })
  const join = async (secret: string, instanceId: string, queue = 'default'): Promise<Reply> =>
    await api.call('POST', '/workers/join', { ...as(secret), json: { instanceId, queue } })
  for (const wrong of ['', 'x', joinSecret.slice(1), operatorKey])
    t.match(await join(wrong, 'i-a'), { status: 401, body: { code: 'unauthenticated' } })
  t.equal((await api.call('POST', '/workers/join', { json: { instanceId: 'i-a', queue: 'default' } })).status, 401)
  t.match(await join(joinSecret, 'i-unknown'), { status: 404, body: { code: 'instance_not_found' } })
  t.equal((await join(joinSecret, 'i-a', 'other')).status, 403)
  const joined = await join(joinSecret, 'i-a')
  t.match(joined, { status: 200, body: { token: /^mwt\./, expiresAt: /T/ } })
  t.equal((await heartbeat(joined.body.token, 'w', 'i-a')).status, 200)
  await api.access.endInstances(['i-b'])
  t.equal((await join(joinSecret, 'i-b')).status, 403)
})

t.test('without a join secret nobody joins', async t => {
  const api = await startTestApi(t)
  const json = { instanceId: 'i-a', queue: 'default' }
  for (const headers of [{}, { authorization: 'Bearer ' }, { authorization: 'Bearer x' }] as Record<string, string>[])
    t.equal((await api.call('POST', '/workers/join', { headers, json })).status, 401)
})

t.test('the ends of instances are told: of those terminated, and those that vanish; again, when it failed', async t => {
  const provider = new MemoryProvider()
  const told: string[] = []
  let fails = true
  const onEnded = async (ids: readonly string[]): Promise<void> => {
    if (fails) throw new Error('Redis is away')
    told.push(...ids)
  }
  const telling = withEndNotifications(provider, { onEnded, log: { warn: () => undefined } as never })
  const [first, second, third] = await telling.launch({ pool: 'default', count: 3, decisionId: 'd', slots: 1 })
  await telling.list()
  await telling.terminate([first?.id ?? ''])
  t.strictSame(told, [])
  fails = false
  provider.end(second?.id ?? '')
  await telling.list()
  t.strictSame(told.toSorted(), [first?.id, second?.id].toSorted())
  t.ok((await telling.list()).some(({ id }) => id === third?.id))
})
