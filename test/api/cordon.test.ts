/** What keeps jobs and workers apart: the cordon in front of a claim, and evidence of workers that were lost. */
import { pino } from 'pino'
import t, { type Test } from 'tap'
import type { Lease } from '../../src/contract/worker-protocol.ts'
import { WorkerRegistry } from '../../src/fleet/workers/registry.ts'
import { noteRunOut } from '../../src/jobs/run/lost-workers.ts'
import { Notifier } from '../../src/notifier.ts'
import { startTestApi, type TestWorker } from '../support/api.ts'
import { one, put, runOut, view } from '../support/job-calls.ts'
import { until } from '../support/until.ts'

const value = { value: { json: 1 } }

/** Stops the next look at the flag of any worker, before or after it was read, until told to go on. */
class LookGate {
  static readonly #real = WorkerRegistry.prototype.mayClaim
  #looks = 0
  #stopAt = 0
  #side: 'before' | 'after' = 'before'
  #reached: () => void = () => undefined
  #goOn: Promise<void> = Promise.resolve()
  #open: () => void = () => undefined

  constructor(test: Test) {
    const gate = this
    WorkerRegistry.prototype.mayClaim = async function (workerId) {
      gate.#looks += 1
      const isMeant = gate.#looks === gate.#stopAt
      if (isMeant && gate.#side === 'before') await gate.#hold()
      const may = await LookGate.#real.call(this, workerId)
      if (isMeant && gate.#side === 'after') await gate.#hold()
      return may
    }
    test.teardown(() => {
      this.#open()
      WorkerRegistry.prototype.mayClaim = LookGate.#real
    })
  }

  /** Stops at the look with this number, counted from now. @returns resolves when it stands there */
  stopAt(look: number, side: 'before' | 'after'): Promise<void> {
    this.#looks = 0
    this.#stopAt = look
    this.#side = side
    this.#goOn = new Promise(resolve => {
      this.#open = resolve
    })
    return new Promise(resolve => {
      this.#reached = resolve
    })
  }

  get lookCount(): number {
    return this.#looks
  }

  goOn(): void {
    this.#open()
  }

  async #hold(): Promise<void> {
    this.#reached()
    await this.#goOn
  }
}

t.test('the cordon', async t => {
  const api = await startTestApi(t, { MUSTER_LEASE_MS: '30000' })
  const gate = new LookGate(t)
  // The terminator stands on another node: it shares Redis with this one, and nothing else.
  const log = pino({ level: 'silent' }) as never
  const registry = new WorkerRegistry({ redis: api.redis, notifier: new Notifier(), log, aliveMs: 60_000 })
  const leasesOf = async (workerId: string): Promise<number> =>
    (await api.jobs.leasesByWorker('default')).get(workerId) ?? 0
  let count = 0
  /** A worker that is there, with as many jobs as asked for running in it. */
  const ready = async (running = 0): Promise<{ worker: TestWorker; leases: Lease[] }> => {
    const worker = api.worker(`f${++count}`)
    await worker.heartbeat()
    for (let index = 0; index < running; index += 1) await put(api, 'type=noop')
    const leases = running > 0 ? await worker.claim(running) : []
    t.equal(leases.length, running)
    return { worker, leases }
  }
  const isUntouched = async (workId: string): Promise<void> => {
    t.match(await view(api, workId), { state: 'waiting', attemptsMade: 0, lostLeases: 0 })
    const { worker } = await ready()
    const lease = await one(worker)
    t.match(lease, { workId, attempt: 1 }, 'the next worker gets it, its first attempt')
    t.notHas(lease, 'exclusive')
    await worker.complete(lease, value)
  }

  await t.test('a claim between flag and lease: nothing is delivered', async t => {
    const { worker } = await ready()
    const workId = await put(api, 'type=noop')
    const looked = gate.stopAt(1, 'after')
    const claim = worker.claimReply()
    await looked
    await registry.requestDrain(worker.workerId, 'idle')
    t.equal(await leasesOf(worker.workerId), 0, 'the terminator sees nothing, and terminates')
    gate.goOn()
    const reply = await claim
    t.match(reply, { status: 409, body: { code: 'drained_worker' } })
    await isUntouched(workId)
  })

  await t.test('a claim between lease and second look: the terminator waits, and nothing is delivered', async t => {
    const { worker } = await ready()
    const workId = await put(api, 'type=noop')
    const looked = gate.stopAt(2, 'before')
    const claim = worker.claimReply()
    await looked
    await registry.requestDrain(worker.workerId, 'idle')
    t.equal(await leasesOf(worker.workerId), 1, 'the lease shows before it is delivered')
    gate.goOn()
    t.match(await claim, { status: 409, body: { code: 'drained_worker' } })
    t.equal(await leasesOf(worker.workerId), 0)
    await isUntouched(workId)
  })

  await t.test('a claim after the second look is delivered, and the terminator waits for it', async t => {
    const { worker } = await ready()
    await put(api, 'type=noop')
    const looked = gate.stopAt(2, 'after')
    const claim = worker.claimReply()
    await looked
    await registry.requestDrain(worker.workerId, 'idle')
    t.equal(await leasesOf(worker.workerId), 1)
    gate.goOn()
    const { status, body } = await claim
    t.equal(status, 200)
    t.equal(await leasesOf(worker.workerId), 1)
    t.match(await worker.complete(body.jobs[0], value, 1), {
      results: [{ outcome: 'succeeded' }],
      jobs: [],
      drain: true,
    })
    t.equal(await leasesOf(worker.workerId), 0)
  })

  await t.test('a claim that waits for a job, told to go just when one comes', async t => {
    const { worker } = await ready()
    const looked = gate.stopAt(2, 'before')
    const claim = worker.claimReply(1, 20_000)
    await until(() => gate.lookCount === 1)
    const workId = await put(api, 'type=noop')
    await looked
    await registry.requestDrain(worker.workerId, 'idle')
    gate.goOn()
    t.match(await claim, { status: 409, body: { code: 'drained_worker' } })
    await isUntouched(workId)
  })

  for (const [where, look, side] of [
    ['flag and lease', 1, 'after'],
    ['lease and second look', 2, 'before'],
  ] as const) {
    await t.test(`a completion that claims, between ${where}: it counts, and brings nothing`, async t => {
      const { worker, leases } = await ready(2)
      const workId = await put(api, 'type=noop')
      const [first, second] = leases as [Lease, Lease]
      const looked = gate.stopAt(look, side)
      const completed = worker.complete(first, value, 1)
      await looked
      await registry.requestDrain(worker.workerId, 'idle')
      t.equal(await leasesOf(worker.workerId), 2)
      gate.goOn()
      t.match(await completed, { results: [{ outcome: 'succeeded' }], jobs: [], drain: true })
      t.equal(await leasesOf(worker.workerId), 1)
      await isUntouched(workId)
      t.match(await worker.complete(second, value), { results: [{ outcome: 'succeeded' }] })
    })
  }

  await t.test('a worker that is forgotten meanwhile gets nothing either', async t => {
    const { worker } = await ready()
    const workId = await put(api, 'type=noop')
    const looked = gate.stopAt(2, 'before')
    const claim = worker.claimReply()
    await looked
    await registry.forget(worker.workerId)
    gate.goOn()
    t.match(await claim, { status: 409, body: { code: 'worker_unknown' } })
    await isUntouched(workId)
  })

  await t.test(
    'a worker that says itself that it goes: its open claim ends at once, its heartbeat does not',
    async t => {
      const { worker, leases } = await ready(1)
      const lease = leases[0] as Lease
      const claim = worker.claimReply(1, 20_000)
      const beat = worker.heartbeat([lease], { state: 'draining', waitMs: 20_000 })
      t.match(await claim, { status: 200, body: { jobs: [] } })
      await api.call('DELETE', `/jobs/${lease.workId}`)
      t.match(
        await beat,
        { stop: [{ workId: lease.workId, reason: 'cancelled' }] },
        'a cancel of what still runs reaches it',
      )
    },
  )
})

t.test('lost workers', async t => {
  const api = await startTestApi(t, { MUSTER_LEASE_MS: '30000', MUSTER_BACKOFF_MS: '10' })
  const enter = async (workerId: string): Promise<TestWorker> => {
    const worker = api.worker(workerId)
    await worker.heartbeat()
    return worker
  }
  const lose = async (...workerIds: string[]): Promise<void> => {
    for (const workerId of workerIds) await api.jobs.returnLeasesOf('default', workerId, true)
  }
  const finish = async (worker: TestWorker, lease: Lease): Promise<void> => {
    t.match(await worker.complete(lease, value), { results: [{ outcome: 'succeeded' }] })
  }

  await t.test('a lease that runs out is evidence, until its worker is heard of again', async t => {
    const workId = await put(api, 'type=noop')
    const away = await enter('away')
    await one(away)
    await runOut(api, workId)
    const next = await enter('next')
    const lease = await one(next)
    t.equal(lease.workId, workId)
    const before = await view(api, workId)
    t.match(before, { lostLeases: 1, lostWorkers: [{ workerId: 'away', at: /Z$/, reason: 'lease ran out' }] })
    t.equal(before.lostWorkers.length, 1)
    await next.heartbeat([lease])
    t.equal((await view(api, workId)).lostLeases, 1, 'another worker proves nothing')
    await away.heartbeat()
    const after = await view(api, workId)
    t.equal(after.lostLeases, 0)
    t.notHas(after, 'lostWorkers')
    await finish(next, lease)
  })

  await t.test('what was judged once is not noted again while nobody has put it back', async t => {
    const { queue } = api.jobs.of('default')
    const workId = await put(api, 'type=noop')
    const away = await enter('away2')
    await one(away)
    // Its time is over, all at once.
    await api.redis.del(`${queue.jobKey(workId)}:lock`)
    await noteRunOut(queue)
    await noteRunOut(queue)
    t.equal((await view(api, workId)).lostLeases, 1)
    await away.heartbeat()
    await noteRunOut(queue)
    t.equal((await view(api, workId)).lostLeases, 0)
    await runOut(api, workId)
    const next = await enter('next2')
    const lease = await one(next)
    t.equal((await view(api, workId)).lostLeases, 0)
    await finish(next, lease)
  })

  await t.test('the job that a completion brought is known to be under that worker', async t => {
    const [first, second] = [await put(api, 'type=noop'), await put(api, 'type=noop')]
    const other = await enter('other')
    const worker = await enter('brings')
    const given = await worker.claim(2)
    await worker.requeue(given)
    const mine = await one(other)
    const brought = (await other.complete(mine, value, 1)).jobs[0]
    t.ok(brought)
    t.match(await view(api, [first, second].find(id => id !== mine.workId) as string), { workerId: 'other' })
    await lose('other')
    t.match((await view(api, brought?.workId as string)).lostWorkers, [{ workerId: 'other', reason: 'worker lost' }])
    await finish(worker, await one(worker))
  })

  await t.test('after two the job runs alone; after three it is dead, with the evidence', async t => {
    const workId = await put(api, 'type=noop&attempts=1')
    for (const name of ['p1', 'p2']) {
      const worker = await enter(name)
      t.notHas(await one(worker), 'exclusive')
      await lose(name)
    }
    t.match(await view(api, workId), { state: 'waiting', attemptsMade: 0, lostLeases: 2 })
    const others = [await put(api, 'type=noop'), await put(api, 'type=noop'), await put(api, 'type=noop')]
    const asks = await enter('asks')
    const leases = await asks.claim(4)
    t.match(leases, [{ workId, exclusive: true, attempt: 1 }], 'it comes alone, whatever was asked for')
    t.equal(leases.length, 1)
    await asks.requeue(leases)
    t.equal((await view(api, workId)).lostLeases, 2, 'a return is no loss')

    // In a worker that holds something else it is not blamed; the other one is.
    const held = await asks.claim(1)
    t.match(held, [{ workId, exclusive: true }])
    const company = await enter('company')
    const beside = await one(company)
    t.ok(others.includes(beside.workId))
    await asks.requeue(held)
    t.match(await company.claim(1), [{ workId, exclusive: true }])
    await lose('company')
    t.match(await view(api, workId), { state: 'waiting', lostLeases: 2 })
    t.match(await view(api, beside.workId), { state: 'waiting', lostLeases: 1 })

    const last = await enter('last')
    // Whichever went back last is first in line.
    const before = await one(last)
    const lease = before.workId === workId ? before : await one(last)
    t.match(lease, { workId, exclusive: true })
    if (before !== lease) await finish(last, before)
    await runOut(api, workId)
    t.equal((await view(api, workId)).lostLeases, 3)
    const next = await enter('next3')
    const served = await next.claim(4, 5000)
    t.notOk(served.some(lease => lease.workId === workId))
    await until(async () => (await view(api, workId)).state === 'dead')
    const dead = await view(api, workId)
    t.same(
      dead.lostWorkers.map(({ workerId }: { workerId: string }) => workerId),
      ['p1', 'p2', 'last'],
    )
    t.match(dead.error, {
      code: 'workers_lost',
      message: /3 times: p1 at .*Z \(worker lost\), p2 .* last .*lease ran out/,
    })
    await last.heartbeat()
    t.equal((await view(api, workId)).lostLeases, 3, 'what is dead keeps its evidence')
    for (const lease of served) await finish(next, lease)
    for (const rest of await next.claim(4)) await finish(next, rest)

    await api.call('POST', `/jobs/${workId}/retry`)
    const replayed = await one(next)
    t.match(replayed, { workId, attempt: 1 })
    t.notHas(replayed, 'exclusive', 'a replay starts from nothing')
    await finish(next, replayed)
  })

  await t.test('an outage of Redis is no death', async t => {
    const workIds = [await put(api, 'type=noop'), await put(api, 'type=noop')]
    const worker = await enter('lives')
    const leases = await worker.claim(2)
    for (const workId of workIds) await runOut(api, workId)
    for (const workId of workIds) t.equal((await view(api, workId)).lostLeases, 1)
    const { stop } = await worker.heartbeat(leases)
    t.same(stop.map(({ reason }) => reason).sort(), ['lost', 'lost'])
    for (const workId of workIds) t.equal((await view(api, workId)).lostLeases, 0)
    const again = await enter('lives2')
    for (const lease of await again.claim(2, 5000)) await finish(again, lease)
  })
})
