/** The watchdog: when it suspects, by a table; and what it does on a real node whose claims hang. */

import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { judge, noSuspicion, type Sight, type Suspicion } from '../../src/jobs/watchdog/stuck.ts'
import { Watchdog, watchdogExitCode } from '../../src/jobs/watchdog/watchdog.ts'
import { closeRedis, connectRedis } from '../../src/redis/connect/connection.ts'
import { startTestApi } from '../support/api.ts'
import { type NodeProcess, startNodeProcess } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
type Body = any

const t0 = 1_800_000_000_000
const windowMs = 10_000
const stuck = { queue: 'default', waiting: 3, isAsked: true, claimedCount: 7 }

/** What comes of a row of sights, one second apart. */
function actionsOf(sights: readonly Sight[], everyMs = 1000): string[] {
  let suspicion: Suspicion = noSuspicion
  return sights.map((sight, at) => {
    const verdict = judge(suspicion, sight, windowMs, t0 + at * everyMs)
    suspicion = verdict.suspicion
    return verdict.action
  })
}
const rows = (count: number, sight: Sight): Sight[] => Array.from({ length: count }, () => sight)
const acted = (sights: readonly Sight[], everyMs?: number): string[] =>
  actionsOf(sights, everyMs).filter((action, at, all) => action !== 'none' && !all.slice(0, at).includes('end'))

t.test('when it suspects', async t => {
  const stuckFor = (count: number): Sight[] => rows(count, [stuck])
  const actions = actionsOf(stuckFor(40))
  t.equal(actions.indexOf('recycle'), 12, 'the first sight proves nothing; then a window, and one look')
  t.equal(actions.indexOf('end'), 22, 'another window')
  t.strictSame(acted(stuckFor(11)), [], 'not before')

  t.strictSame(acted(rows(40, [{ ...stuck, waiting: 0 }])), [], 'nothing waits, or the queue is paused')
  t.strictSame(acted(rows(40, [{ ...stuck, isAsked: false }])), [], 'nobody asks')
  t.strictSame(acted(rows(40, undefined)), [], 'Redis is away')
  t.strictSame(acted(stuckFor(40), 6000), [], 'the process stood still again and again')
  t.strictSame(
    acted(Array.from({ length: 40 }, (_, at) => [{ ...stuck, claimedCount: Math.floor(at / 9) }])),
    [],
    'a job now and then is claimed',
  )
  t.strictSame(
    acted([...stuckFor(8), undefined, ...stuckFor(8), undefined, ...stuckFor(8)]),
    [],
    'after an outage the time begins anew',
  )
  t.strictSame(
    acted([...stuckFor(14), [{ ...stuck, claimedCount: 8 }], ...rows(14, [{ ...stuck, claimedCount: 8 }])]),
    ['recycle', 'recycle'],
    'new connections helped: the next time they are tried first',
  )
  t.strictSame(acted([...stuckFor(14), undefined, ...stuckFor(14)]), ['recycle', 'end'], 'an outage is no help')
  const well = { ...stuck, queue: 'other', waiting: 0 }
  t.strictSame(acted(rows(24, [well, stuck])), ['recycle', 'end'], 'each queue by itself')
})

/** In front of Redis: whatever carries a script hangs, on the connections of now or on all to come; the rest passes. */
async function startScriptTrap(t: Test, targetPort: number) {
  const carriers = new Set<Socket>()
  const frozen = new Set<Socket>()
  let isTrap = false
  let scriptCount = 0
  const sockets = new Set<Socket>()
  const server = createServer(near => {
    const far = createConnection(targetPort, '127.0.0.1')
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        near.destroy()
        far.destroy()
      })
    }
    near.on('data', data => {
      if (/evalsha|eval\b/i.test(data.toString('latin1'))) {
        carriers.add(near)
        scriptCount += 1
        if (isTrap) frozen.add(near)
      }
      if (!frozen.has(near)) far.write(data)
    })
    far.on('data', data => {
      if (!frozen.has(near)) near.write(data)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** Resolves when one more script has gone through. */
    nextScript: async () => {
      const before = scriptCount
      await until(() => scriptCount > before)
    },
    freezeNow: () => {
      for (const near of carriers) if (!near.destroyed) frozen.add(near)
    },
    freezeAlways: () => {
      isTrap = true
    },
  }
}

const post = async (node: NodeProcess, path: string, body: object): Promise<{ status: number; body: Body }> => {
  const headers = { 'content-type': 'application/json' }
  const signal = AbortSignal.timeout(15_000)
  const reply = await fetch(node.url + path, { method: 'POST', headers, body: JSON.stringify(body), signal })
  return { status: reply.status, body: await reply.json() }
}
const me = { workerId: 'w1', queue: 'default', slots: 1, types: ['noop'] }

async function setUp(t: Test) {
  const redis = await startTestRedis(t, { tcp: true })
  const trap = await startScriptTrap(t, Number(new URL(redis.url as string).port))
  const base = { MUSTER_FLEET: 'none', MUSTER_SHUTDOWN_GRACE_MS: '0' }
  const node = await startNodeProcess(t, { ...base, MUSTER_REDIS_URL: trap.url, MUSTER_WATCHDOG_MS: '2000' })
  const other = await startNodeProcess(t, { ...base, MUSTER_REDIS_URL: redis.url as string })
  await post(node, '/workers/heartbeat', { worker: me, state: 'ready', leases: [] })
  const enqueue = async (): Promise<void> => {
    const headers = { 'content-type': 'application/json' }
    const reply = await fetch(`${other.url}/enqueue?type=noop`, { method: 'PUT', headers, body: '{"payload":null}' })
    t.equal(reply.status, 200)
  }
  /** Asks until there is a job, or the node is gone. */
  const claim = async (): Promise<Body | undefined> => {
    let job: Body | undefined
    await until(async () => {
      const ask = { workerId: 'w1', queue: 'default', max: 1, waitMs: 10_000 }
      const reply = await post(node, '/workers/claim', ask).catch(() => undefined)
      job = reply?.status === 200 ? reply.body.jobs[0] : undefined
      return reply === undefined || job !== undefined
    })
    return job
  }
  return { node, trap, enqueue, claim }
}

t.test('claims that hang: new connections help', async t => {
  const { node, trap, enqueue, claim } = await setUp(t)
  await enqueue()
  t.ok(await claim(), 'it works')
  const isAsking = trap.nextScript()
  const claimed = claim()
  await isAsking
  trap.freezeNow()
  await enqueue()
  t.match(await claimed, { type: 'noop' }, 'the job is claimed after all')
  t.match(node.output(), /the connections to Redis are made anew/)
  t.notMatch(node.output(), /ends itself/)
})

t.test('claims that hang again: the process ends, to be started anew', async t => {
  const { node, trap, enqueue, claim } = await setUp(t)
  await enqueue()
  t.ok(await claim())
  trap.freezeAlways()
  await enqueue()
  void claim()
  t.equal(await node.ended(), watchdogExitCode)
  t.match(node.output(), /the connections to Redis are made anew[\s\S]*still nothing is claimed/)
})

t.test('no false alarm', async t => {
  const api = await startTestApi(t)
  const address = { socketPath: api.server.socketPath }
  const said: string[] = []
  const log = { info: () => undefined, debug: () => undefined, warn: () => undefined }
  const say = (_fields: object, message: string): void => void said.push(message)
  let lookedAt = 0
  const redis = await connectRedis({ ...address, purpose: 'commands', log: log as never })
  const watchdog = new Watchdog({
    queues: [api.jobs.of('default')],
    redis,
    windowMs: 500,
    log: { ...log, error: say, fatal: say } as never,
    recycle: () => said.push('recycled'),
    end: () => said.push('ended'),
    clock: () => {
      lookedAt = Date.now()
      return lookedAt
    },
  })
  watchdog.start()
  t.teardown(async () => {
    await watchdog.stop()
    await closeRedis(redis)
  })
  const { activity } = api.jobs.of('default').claims
  const put = (query = '') => api.call('PUT', `/enqueue?type=noop${query}`, { json: { payload: null } })
  const worker = api.worker()
  await worker.heartbeat()
  /** Resolves once it has looked for three windows more. */
  const threeWindows = async (): Promise<void> => {
    const from = Date.now()
    await until(() => lookedAt >= from + 3 * 500)
  }

  await t.test('a queue that is paused', async t => {
    await api.call('POST', '/queues/default/pause')
    await put()
    const claim = worker.claim(1, 2000)
    await threeWindows()
    t.strictSame(said, [])
    await claim
  })
  await t.test('a worker that was told to go', async t => {
    await api.fleet.registry.requestDrain('w1', 'test')
    await api.call('POST', '/queues/default/resume')
    let isOver = false
    const watched = threeWindows().then(() => {
      isOver = true
    })
    await until(async () => {
      t.equal((await worker.claimReply(1, 100)).status, 409)
      return isOver
    })
    await watched
    t.strictSame(said, [])
  })
  await t.test('Redis stands still, and comes back', async t => {
    const other = api.worker('w2')
    await other.heartbeat()
    const [lease] = await other.claim(1, 1000)
    t.ok(lease)
    const claims = other.claimReply(1, 20_000)
    // Nobody else asks any more, so what asks now is this claim.
    await until(() => activity.askedFor(performance.now()) !== undefined)
    process.kill(api.server.pid, 'SIGSTOP')
    await threeWindows()
    process.kill(api.server.pid, 'SIGCONT')
    await put('&delayMs=1200')
    t.equal((await claims).status, 200)
    t.strictSame(said, [])
  })
  await t.test('but claims that really hang are seen here, too', async t => {
    await put()
    let answer = (): void => undefined
    const asking = activity.during(['noop', 'sha512'], () => new Promise<void>(resolve => (answer = resolve)))
    await until(() => said.includes('recycled') && said.includes('ended'))
    answer()
    await asking
    t.pass('so the others were no accident')
  })
})
