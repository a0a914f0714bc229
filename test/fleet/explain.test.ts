/** Decisions as they are recorded, asked for over HTTP, put into words and taken again. */
import t from 'tap'
import { explain } from '../../src/fleet/journal/explain.ts'
import { runExplain } from '../../src/fleet/journal/explain-command.ts'
import { Journal } from '../../src/fleet/journal/journal.ts'
import { LatestDecisions } from '../../src/fleet/journal/latest-decisions.ts'
import { keys } from '../../src/fleet/redis-keys.ts'
import { decide } from '../../src/fleet/scaling/decide.ts'
import { startTestApi } from '../support/api.ts'
import { booting, interrupted, pool, ready, t0 } from '../support/snapshots.ts'

const api = await startTestApi(t)
const { redis } = api
const journal = new Journal(redis)
const latest = new LatestDecisions(redis)
t.beforeEach(async () => {
  await redis.del(keys.decisions, keys.latest)
})

const inputs = pool({
  settings: { minWorkers: 1 },
  load: { waiting: 36, running: 4, serviceMs: 2000, arrivalsPerSecond: 0 },
  bootMs: 16_000,
  failures: { count: 0, lastAt: 0 },
  instances: [
    ready('a', { leases: 2, market: 'spot', instanceType: 'c7g.large', zone: 'eu-west-1a', hourlyUsd: 0.03 }),
    ready('b', { leases: 2 }),
    booting('c', t0 - 31_000),
    interrupted('d'),
  ],
})
const recorded = () => ({
  queue: 'default',
  at: t0,
  epoch: 3,
  decisionId: 'default-x-7',
  ...decide(inputs, t0),
  inputs,
})

const run = async (id?: string, urls: readonly string[] = [api.url]) => {
  const lines: string[] = []
  const code = await runExplain({ urls, fetch, print: line => lines.push(line), ...(id !== undefined && { id }) })
  return { code, text: lines.join('\n') }
}

t.test('in words', async t => {
  const id = await journal.write({ ...recorded(), bootDiagnostics: { c: 'booting\nno network\n' } })
  const { code, text } = await run(id)
  t.equal(code, 0)
  t.equal(
    text,
    `default: decision ${id}, 2027-01-15T08:00:00.000Z (epoch 3)
  ${decide(inputs, t0).explanation}
  boot-time: A new worker would be ready too late to shorten the wait
  Seen:
    36 waiting, 0 due soon, 4 running
    a job takes 2000 ms, a boot 16000 ms; 0 jobs a second come in
    policy target-wait, 1 to 10 workers; launches failed in a row: 0
  Size, rule by rule:
    target-wait      0 → 8  40 jobs (36 waiting, 0 due, 4 running) at 2000 ms each, to finish within 5000 ms on 2 slots a worker, need 8 workers
    boot-time        8 → 4  but a new one would be ready in 16000 ms, by when the 3 there will have finished 32 of 40 jobs and 0 that come meanwhile, so 4 workers will do
    jobs-per-worker  leaves it at 4
    fixed            leaves it at 4
    paused           leaves it at 4
    floor            leaves it at 4
    ceiling          leaves it at 4
  Instances:
    terminate c (booting, 0 of 2 slots busy, launched 31000 ms before): boot-timeout (No worker has registered from the instance in time)
    no rule acts on 2 ready, 1 draining
    launch 2: boot-time, as default-x-7
  c said while it booted:
    | booting
    | no network
replayed: same decision`,
  )
})

t.test('the latest of each pool; nodes that are away are passed over', async t => {
  await t.rejects(run(), { message: /Nothing was decided yet/ })
  await latest.write('default', { at: t0, epoch: 3, decision: decide(inputs, t0), inputs })
  const { code, text } = await run(undefined, ['http://127.0.0.1:1', api.url])
  t.equal(code, 0)
  t.match(text, /^default: the latest decision, /)
  t.match(text, /replayed: same decision$/)
  await t.rejects(run(undefined, ['http://127.0.0.1:1']), { message: /No node answers at http:\/\/127\.0\.0\.1:1/ })
  await t.rejects(run('1-1'), { message: /No such decision/ })
  await t.rejects(run('../../status'), { message: /No such decision|Nothing is at this path/ })
})

t.test('one that would be taken otherwise today', async t => {
  const id = await journal.write({ ...recorded(), desired: 99 })
  const { code, text } = await run(id)
  t.equal(code, 1)
  t.match(text, /replayed: a different decision\n {2}desired: recorded 99, now 4$/)
  const byHand = await journal.write({
    queue: 'default',
    at: t0,
    desired: 1,
    reason: 'manual',
    explanation: 'Somebody asked for 1 more.',
    actions: [{ kind: 'launch', count: 1, reason: 'manual' }],
  })
  t.match(await run(byHand), { code: 0, text: /\(by hand\)[\s\S]*Nothing was recorded to take it again from/ })
})

t.test('hundreds of instances take little room, and old entries are read', async t => {
  const instances = Array.from({ length: 500 }, (_, n) =>
    ready(`i-0${(n * 7_919_777 + 123_456_789).toString(16).padStart(16, '0')}`, {
      launchedAt: t0 - 77_123 * n,
      lastSeenAt: t0 - ((n * 37) % 5000),
      leases: n % 3,
      ...(n % 3 === 0 ? { idleSince: t0 - ((n * 7919) % 90_000) } : {}),
      market: n % 4 === 0 ? 'on-demand' : 'spot',
      instanceType: 'c7g.large',
      zone: `eu-west-1${'abc'[n % 3]}`,
      hourlyUsd: 0.0312,
    }),
  )
  const many = pool({ settings: { maxWorkers: 500 }, instances })
  const decision = decide(many, t0)
  t.ok(decision.actions.length > 20)
  const id = await journal.write({ queue: 'default', at: t0, epoch: 1, ...decision, inputs: many })
  const [[, [, text = '']] = ['', []]] = await redis.xrange(keys.decisions, id, id)
  const plain = JSON.stringify(many).length
  t.comment(`${plain} bytes as they are, ${text.length} with the decision as recorded`)
  t.ok(text.length < plain / 4, 'a quarter at most')
  const entry = await journal.find(id)
  t.same(entry?.inputs, many)
  t.equal(explain(entry ?? recorded()).replay, 'same')

  const old = { queue: 'default', at: t0, epoch: 1, ...decide(inputs, t0), inputs }
  const oldId = (await redis.xadd(keys.decisions, '*', 'entry', JSON.stringify(old))) ?? ''
  t.same(await journal.find(oldId), { id: oldId, ...old })
  const { body } = await api.call('GET', '/fleet/decisions?limit=2')
  t.same(
    body.decisions.map(({ inputs }: { inputs: { instances: unknown[] } }) => inputs.instances.length),
    [4, 500],
  )
})

t.test('HTTP: what is asked for wrongly', async t => {
  const cases: [string, string, unknown, number, string][] = [
    ['GET', '/fleet/decisions/none', undefined, 404, 'decision_not_found'],
    ['GET', '/fleet/pools/default/decision', undefined, 404, 'decision_not_found'],
    ['GET', '/fleet/pools/nobody/decision', undefined, 404, 'queue_unknown'],
    ['POST', '/fleet/instances/nobody/terminate', undefined, 404, 'instance_not_found'],
    ['POST', '/fleet/instances/nobody/terminate', { force: true }, 404, 'instance_not_found'],
    ['POST', '/fleet/instances/nobody/terminate', { force: 'yes' }, 400, 'request_invalid'],
    ['POST', '/fleet/instances/nobody/terminate?force=maybe', undefined, 400, 'parameter_invalid'],
    ['POST', '/fleet/instances/nobody/terminate?force=true', undefined, 404, 'instance_not_found'],
  ]
  for (const [method, path, json, status, code] of cases)
    t.match(await api.call(method, path, json === undefined ? {} : { json }), { status, body: { code } }, path)
})

t.test('HTTP: force takes the jobs of a worker away, and no attempt is spent', async t => {
  const w = api.worker('w1')
  await w.heartbeat()
  const { body } = await api.call('PUT', '/enqueue?iterations=1', {
    headers: { 'content-type': 'application/octet-stream' },
    body: 'x',
  })
  const [lease] = await w.claim()
  t.match(lease, { workId: body['Work ID'], attempt: 1 })
  t.match(await api.call('POST', '/fleet/instances/w1/terminate', { json: { force: true } }), {
    status: 200,
    body: { instanceId: 'w1', state: 'draining', returned: 1 },
  })
  t.match(await api.call('GET', `/jobs/${body['Work ID']}`), { body: { state: 'waiting', attemptsMade: 0 } })
  t.match(await w.claimReply(), { body: { code: 'drained_worker' } })
  t.match(await api.call('GET', '/fleet'), {
    body: { pools: [{ workers: [{ workerId: 'w1', drainReason: 'manual' }] }] },
  })
})
