/** What an answer means with MUSTER_DURABILITY=replicated: the API of a node on a real primary with a real replica. */
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { LaunchTickets } from '../../src/fleet/scaling/launch-tickets.ts'
import { closeRedis, connectRedis } from '../../src/redis/connect/connection.ts'
import { NotDurableError } from '../../src/redis/redis-errors.ts'
import { openWrites } from '../../src/redis/writes/replicated-writes.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { type Reply, startApiOn, startTestApi, type TestApi } from '../support/api.ts'
import { type RedisPair, startRedisPair } from '../support/redis-pair.ts'
import { until } from '../support/until.ts'

const log = pino({ level: 'silent' })

async function setUp(t: Test, environment: Record<string, string> = {}): Promise<{ api: TestApi; pair: RedisPair }> {
  const pair = await startRedisPair(t)
  const settings = { MUSTER_REDIS_URL: pair.url, MUSTER_DURABILITY: 'replicated', ...environment }
  return { pair, api: await startApiOn(t, { url: pair.url }, settings) }
}

const put = (api: TestApi, query = '', headers: Record<string, string> = {}): Promise<Reply> =>
  api.call('PUT', `/enqueue?type=noop${query}`, { headers, json: { payload: 1 } })
const pull = (api: TestApi, query = 'top=100'): Promise<Reply> => api.call('POST', `/pullCompleted?${query}`)
const ids = (reply: Reply): string[] => reply.body.map((entry: Record<string, string>) => entry['Work ID'])

function isUnavailable(t: Test, reply: Reply, what: string): void {
  t.equal(reply.status, 503, `${what}: ${JSON.stringify(reply.body)}`)
  t.equal(reply.body.code, 'redis_unavailable')
  t.ok(Number(reply.headers.get('retry-after')) >= 1, 'and says when to come again')
}

/** Claims and completes all that waits. */
async function workOff(api: TestApi, count: number): Promise<string[]> {
  const worker = api.worker()
  await worker.heartbeat()
  const leases = await worker.claim(count)
  for (const lease of leases) await worker.complete(lease, { value: { json: lease.workId } })
  return leases.map(({ workId }) => workId)
}

t.test('what is asked for, and what was reached', async t => {
  const { api, pair } = await setUp(t)
  const reached = (reply: Reply): string => `${reply.status} ${reply.headers.get('muster-durability')}`
  t.equal(reached(await put(api)), '200 replicated')
  t.equal(reached(await put(api, '&durability=replicated')), '200 replicated')
  t.equal(reached(await put(api, '&durability=local')), '200 local')
  const data = Buffer.from('abc')
  const form = new FormData()
  form.set('data', new Blob([data]))
  for (const options of [
    { headers: { 'content-type': 'application/octet-stream' }, body: data },
    { headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: 'data=abc' },
    { json: { data: data.toString('base64') } },
    { body: form },
  ])
    t.equal(reached(await api.call('PUT', '/enqueue?iterations=1', options)), '200 replicated')
  t.match(await put(api, '&durability=two'), { status: 400, body: { code: 'parameter_invalid' } })
  pair.freezeReplica()
  t.equal(reached(await put(api, '&durability=local')), '200 local', 'which waits for no replica')
  await pair.thawReplica()

  const lonely = await startTestApi(t)
  t.equal(reached(await put(lonely)), '200 local')
  t.equal(reached(await put(lonely, '&durability=local')), '200 local')
  const refused = await put(lonely, '&durability=replicated')
  t.match(refused, { status: 400, body: { code: 'parameter_invalid', detail: /MUSTER_DURABILITY=local/ } })
  t.equal((await lonely.call('GET', '/status')).body.Jobs, 2, 'and nothing was kept of it')

  const settings = (environment: Record<string, string>) =>
    readSettings({ MUSTER_CONFIG_FILE: '/nonexistent', ...environment }).durability
  t.equal(settings({}), 'local')
  t.equal(settings({ MUSTER_REDIS_URL: 'redis://host' }), 'local')
  t.equal(settings({ MUSTER_REDIS_URL: 'redis+sentinel://a,b,c/muster' }), 'replicated')
  t.equal(settings({ MUSTER_REDIS_URL: 'rediss+sentinel://a,b,c/muster' }), 'replicated')
  t.throws(() => settings({ MUSTER_DURABILITY: 'replicated' }), /MUSTER_DURABILITY.*MUSTER_REDIS_URL/)
})

t.test('nothing is acknowledged without a second copy, and what was acknowledged is there after a switch', async t => {
  const { api, pair } = await setUp(t)
  const acked = new Set<string>()
  for (const reply of await Promise.all(Array.from({ length: 50 }, () => put(api)))) acked.add(reply.body['Work ID'])

  pair.freezeReplica()
  await pair.onPrimary.config('RESETSTAT')
  const blocked = await Promise.all([put(api), put(api, '', { 'idempotency-key': 'again' })])
  for (const reply of blocked) {
    isUnavailable(t, reply, 'PUT')
    t.match(reply.body.detail, /may have been kept or not/)
  }
  const waits = Number(/cmdstat_wait:calls=(\d+)/.exec(await pair.onPrimary.info('commandstats'))?.[1] ?? 0)
  t.ok(waits >= 2, `${waits}: they were tried again before they were refused`)

  // It has been away for longer than anybody is held: one asks, all others are told at once.
  const asking = put(api)
  const others = await Promise.all(Array.from({ length: 5 }, () => put(api)))
  t.ok(others.filter(({ status }) => status === 503).length >= 4)
  await pair.thawReplica()
  const late = await asking
  if (late.status === 200) acked.add(late.body['Work ID'])

  const again = await put(api, '', { 'idempotency-key': 'again' })
  t.equal(again.status, 200, 'with the same key it is taken at last')
  acked.add(again.body['Work ID'])
  // Those are acknowledged after some tries: the replica comes back while they wait. A machine that is so slow that their
  // time is over before does it once more.
  await until(async () => {
    await until(async () => (await put(api)).status === 200)
    const count = await pair.onPrimary.zcard('{muster:default}:lane:noop')
    pair.freezeReplica()
    let answered = 0
    const waiting = Array.from({ length: 20 }, () => put(api).finally(() => (answered += 1)))
    await until(async () => answered > 0 || (await pair.onPrimary.zcard('{muster:default}:lane:noop')) >= count + 20)
    await pair.thawReplica()
    const retried = (await Promise.all(waiting)).filter(({ status }) => status === 200)
    for (const reply of retried) acked.add(reply.body['Work ID'])
    return retried.length === waiting.length
  })

  pair.freezeReplica()
  await put(api, '&durability=local')
  await pair.primary.kill()
  process.kill(pair.replica.pid, 'SIGCONT')
  await pair.onReplica.replicaof('NO', 'ONE')
  const waitingIds = await pair.onReplica.zrange('{muster:default}:lane:noop', '0', '-1')
  const kept = new Set(waitingIds)
  t.equal(kept.size, waitingIds.length, 'each is one job, however often it was sent')
  t.strictSame(
    [...acked].filter(id => !kept.has(id)),
    [],
    'what was acknowledged is there',
  )
})

t.test('a submitter that has gone is not tried for any longer', async t => {
  const { api, pair } = await setUp(t)
  await put(api)
  pair.freezeReplica()
  const gone = new AbortController()
  const call = api.call('PUT', '/enqueue?type=noop', { json: { payload: 1 }, signal: gone.signal })
  await until(async () => Number(await pair.onPrimary.zcard('{muster:default}:lane:noop')) === 2)
  const [goneId] = (await pair.onPrimary.zrange('{muster:default}:lane:noop', '1', '1')) as [string]
  const scripts: string[] = []
  const monitor = await pair.onPrimary.monitor()
  t.teardown(() => monitor.disconnect())
  monitor.on('monitor', (_time: string, args: string[], source: string) => {
    if (source !== 'lua' && /^eval/i.test(args[0] ?? '')) scripts.push(args.join(' '))
  })
  gone.abort()
  await t.rejects(call)
  // One that stays is tried until its time is over: meanwhile the other one would be, too.
  const staying = await put(api)
  isUnavailable(t, staying, 'PUT')
  const stayingId = (await pair.onPrimary.zrange('{muster:default}:lane:noop', '2', '2'))[0] as string
  const tries = scripts.filter(script => script.includes(stayingId))
  t.ok(tries.length >= 2, `the one that stays is tried ${tries.length} times`)
  const after = scripts.slice(scripts.findIndex(script => script.includes(stayingId)))
  t.notOk(
    after.some(script => script.includes(goneId)),
    'the one that has gone is not',
  )
  await pair.thawReplica()
})

t.test('a pull without a second copy gives its results back, whatever its lease', async t => {
  const { api, pair } = await setUp(t)
  for (let count = 0; count < 5; count += 1) await put(api)
  const done = await workOff(api, 5)
  t.equal(done.length, 5)
  pair.freezeReplica()
  isUnavailable(t, await pull(api, 'top=100&leaseMs=3600000'), 'pull')
  t.equal(await pair.onPrimary.zcard('{muster:default}:leased'), 5, 'they are leased, and nobody knows')
  await pair.thawReplica()
  await until(async () => (await pair.onPrimary.zcard('{muster:default}:leased')) === 0)
  const pulled = await pull(api, 'top=100&leaseMs=3600000')
  t.strictSame(ids(pulled), done, 'all, in their order')

  pair.freezeReplica()
  const leaseId = pulled.headers.get('muster-lease-id')
  isUnavailable(t, await api.call('POST', '/pullCompleted/ack', { json: { leaseId } }), 'ack')
  await pair.thawReplica()
  const repeated = await api.call('POST', '/pullCompleted/ack', { json: { leaseId } })
  t.match(repeated, { status: 200, body: { acked: 5, notHeld: [] } })
  t.strictSame((await pull(api)).body, [])
})

t.test('a pull that is carried out after it was given up leases nothing', async t => {
  const { api } = await setUp(t)
  await put(api)
  await workOff(api, 1)
  const { results } = api.jobs.of('default')
  await results.abandon(['default/late'])
  const options = {
    top: 10,
    waitMs: 0,
    budget: { reserve: () => 1000, release: () => undefined },
    includeFailed: false,
    signal: new AbortController().signal,
  }
  t.strictSame(await results.pull({ ...options, leaseId: 'default/late', leaseMs: 60_000 }), [])
  t.equal((await results.pull({ ...options, leaseId: 'default/new', leaseMs: 60_000 })).length, 1)
})

t.test('what was being sent when its node was lost is not handed out again, and can be read', async t => {
  const { api, pair } = await setUp(t)
  for (let count = 0; count < 2; count += 1) await put(api)
  const done = await workOff(api, 2)
  const { results } = api.jobs.of('default')
  const options = {
    top: 1,
    waitMs: 0,
    budget: { reserve: () => 1000, release: () => undefined },
    includeFailed: false,
    signal: new AbortController().signal,
  }
  const runOut = async (): Promise<unknown> =>
    await pair.onPrimary.zadd('{muster:default}:leased', 1, done[0] as string)

  // The node is lost before it sends anything: the lease runs out, and the next one gets it.
  await results.pull({ ...options, leaseId: 'default/a', leaseMs: 60_000 })
  await runOut()
  await until(
    async () => (await results.pull({ ...options, leaseId: 'default/b', leaseMs: 60_000 }))[0]?.workId === done[0],
  )
  await results.release('default/b', [done[1] as string])
  t.strictSame(await results.markSending('default/a', [done[0] as string]), [], 'whose lease ran out may not send it')

  // The client is seen to go: it comes back.
  t.strictSame(await results.markSending('default/b', [done[0] as string]), [done[0]])
  t.match(await api.call('GET', `/jobs/${done[0]}`), { body: { collection: 'acked' } })
  await results.release('default/b', [done[0] as string])
  t.equal((await results.pull({ ...options, leaseId: 'default/c', leaseMs: 60_000 }))[0]?.workId, done[0])

  // The node is lost with the reply on its way.
  await results.markSending('default/c', [done[0] as string])
  await runOut()
  t.strictSame(ids(await pull(api)), [done[1]])
  t.equal((await api.call('GET', `/jobs/${done[0]}/result`)).status, 200)
})

t.test('an ack that follows a reply is sent until it is kept', async t => {
  const { api, pair } = await setUp(t)
  await put(api)
  const done = await workOff(api, 1)
  // The reply is on its way when the replica freezes: the ack that follows it comes short, again and again.
  const { results } = api.jobs.of('default')
  const ack = results.ack.bind(results)
  let tries = 0
  results.ack = async (...args) => {
    if (tries === 0) pair.freezeReplica()
    tries += 1
    return await ack(...args)
  }
  t.strictSame(ids(await pull(api)), done)
  await until(() => tries >= 2)
  await pair.thawReplica()
  await until(async () => (await pair.onReplica.zcard('{muster:default}:leased')) === 0)
  t.strictSame((await pull(api)).body, [])
  await pair.primary.kill()
  await pair.onReplica.replicaof('NO', 'ONE')
  t.equal(await pair.onReplica.zcard('{muster:default}:uncollected'), 0, 'no switch brings it back')
})

t.test('a completion is answered once it is kept; sent again, it is recorded once', async t => {
  const { api, pair } = await setUp(t)
  for (let count = 0; count < 3; count += 1) await put(api)
  const worker = api.worker()
  await worker.heartbeat()
  const [first, second, third] = await worker.claim(3)
  if (first === undefined || second === undefined || third === undefined) throw new Error('no jobs')
  pair.freezeReplica()
  const value = { value: { json: 1 } }
  const failed = { error: { code: 'broken', message: 'no luck', retryable: false } }
  await t.rejects(worker.complete(first, value), /503.*redis_unavailable/)
  await t.rejects(worker.complete(second, failed), /503.*redis_unavailable/)
  await t.rejects(worker.requeue([third]), /503.*redis_unavailable/)
  await t.rejects(worker.complete(first, value), /503.*redis_unavailable/, 'nor is a worker told "stale" yet')
  await t.rejects(worker.complete(second, failed), /503.*redis_unavailable/)
  await pair.thawReplica()
  t.match(await worker.complete(first, value), { results: [{ outcome: 'stale' }] }, 'the first one counted')
  t.match(await worker.complete(second, failed), { results: [{ outcome: 'stale' }] })
  t.equal(await worker.requeue([third]), 0)
  const pulled = await pull(api, 'top=10&failed=include')
  t.strictSame(ids(pulled), [first.workId, second.workId])
  t.strictSame((await pull(api, 'top=10&failed=include')).body, [])
  t.strictSame(
    (await worker.claim(5)).map(({ workId }) => workId),
    [third.workId],
    'what was given back is there once',
  )
})

t.test('orders of an operator and cordons are kept before they are acknowledged', async t => {
  const { api, pair } = await setUp(t)
  const { 'Work ID': workId } = (await put(api)).body
  await api.worker('w1').heartbeat()
  const orders = [
    ['POST', '/queues/default/pause'],
    ['POST', '/queues/default/drain'],
    ['DELETE', `/jobs/${workId}`],
    ['POST', '/queues/default/resume'],
    ['POST', '/queues/default/retry'],
  ] as const
  for (const [method, path] of orders) t.equal((await api.call(method, path)).status, 200, path)
  const commands = await connectRedis({ url: pair.url, purpose: 'commands', log })
  const { writes, close } = await openWrites('replicated', { url: pair.url }, commands, log)
  t.teardown(async () => {
    await close()
    await closeRedis(commands)
  })
  const tickets = new LaunchTickets(commands, writes)
  const ticket = await tickets.current('default')

  pair.freezeReplica()
  const replies = await Promise.all(orders.map(([method, path]) => api.call(method, path)))
  for (const [index, reply] of replies.entries()) isUnavailable(t, reply, orders[index]?.[1] as string)
  isUnavailable(t, await api.call('POST', '/fleet/instances/w1/terminate'), 'cordon')
  await t.rejects(tickets.useUp('default', ticket, []), NotDurableError)
  await pair.thawReplica()
  for (const [method, path] of orders) t.equal((await api.call(method, path)).status, 200, path)
  t.match(await api.call('POST', '/fleet/instances/w1/terminate'), { status: 200, body: { state: 'draining' } })
})
