/** Jobs of several types, in random order against a real Redis, beside a simple model of who gets what. */
import t from 'tap'
import type { Lease } from '../../src/contract/worker-protocol.ts'
import { countByType, sortWaiting } from '../../src/jobs/bullmq/lanes.ts'
import { reserveWorkId } from '../../src/jobs/submit/submit.ts'
import { startTestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

interface ModelJob {
  readonly id: string
  readonly type: string
  readonly priority: number
  state: 'waiting' | 'running' | 'succeeded' | 'dead' | 'cancelled'
  /** The lower the sooner, within its priority. */
  place: number
  starts: number
  attempts: number
  wasStarted: boolean
  lease?: Lease
}

const types = ['a', 'b', 'c', 'd']
const workers = [['a'], ['b', 'c'], ['c', 'a'], ['a', 'b', 'c'], ['x'], []]

/** Mulberry32: the same numbers for the same seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

const seed = Number(process.env.MUSTER_TEST_SEED ?? Date.now() % 1_000_000)
t.test(`a worker gets what it declared, in order (MUSTER_TEST_SEED=${seed})`, async t => {
  const api = await startTestApi(t, { MUSTER_BACKOFF_MS: '0', MUSTER_LEASE_MS: '600000' })
  const { queue, submitter, claims, completions, control } = api.jobs.of('default')
  // Of a worker that nobody knows, the reaper hands back all leases.
  await api.worker('w').heartbeat()
  const random = randomOf(seed)
  const model = new Map<string, ModelJob>()
  let arrivals = 0
  let firsts = 0
  const pick = (state: ModelJob['state']): ModelJob | undefined => {
    const all = [...model.values()].filter(job => job.state === state)
    return all[random(Math.max(1, all.length))]
  }
  const place = (job: ModelJob): void => {
    job.state = 'waiting'
    delete job.lease
    arrivals += 1
    const isFirst = job.wasStarted && job.starts > job.attempts
    if (isFirst) firsts += 1
    // Those that come first share one place when they have a priority.
    job.place = isFirst ? (job.priority === 0 ? -firsts : 0) : arrivals
  }
  const waitingFor = (declared: readonly string[]): ModelJob[] =>
    [...model.values()]
      .filter(({ state, type }) => state === 'waiting' && declared.includes(type))
      .sort((a, b) => a.priority - b.priority || a.place - b.place || 0)
  const take = (job: ModelJob, lease: Lease): void => {
    Object.assign(job, { state: 'running', lease, wasStarted: true, starts: job.starts + 1 })
  }
  const checkTaken = (leases: readonly Lease[], declared: readonly string[], max: number, what: string): void => {
    const expected = waitingFor(declared)
    const key = ({ priority, place: at }: ModelJob): string => `${priority}:${at}`
    const taken = leases.map(({ workId }) => model.get(workId) as ModelJob)
    t.strictSame(taken.map(key), expected.slice(0, max).map(key), what)
    for (const lease of leases) {
      t.ok(declared.includes(lease.type), `${what}: ${lease.type} is declared`)
      t.equal(model.get(lease.workId)?.type, lease.type)
      take(model.get(lease.workId) as ModelJob, lease)
    }
  }
  const submit = async (delayMs = 0): Promise<void> => {
    const job: ModelJob = {
      id: reserveWorkId('default'),
      type: types[random(types.length)] as string,
      priority: random(3) === 0 ? random(4) : 0,
      state: 'waiting',
      place: 0,
      starts: 0,
      attempts: 0,
      wasStarted: false,
    }
    const { id: workId, type, priority } = job
    await submitter.submit({ workId, type, priority, payload: { json: null }, attempts: 3, delayMs })
    if (delayMs > 0) {
      await until(async () => {
        await sortWaiting(queue)
        return (await queue.bull.getDelayedCount()) === 0
      })
    }
    place(job)
    model.set(workId, job)
  }
  const claim = async (declared: readonly string[], max: number, what: string): Promise<void> => {
    const signal = new AbortController().signal
    checkTaken(await claims.claim({ workerId: 'w', types: declared, max, waitMs: 0, signal }), declared, max, what)
  }
  const moves: Record<string, (what: string) => Promise<void>> = {
    submit: async () => {
      for (let count = random(5); count >= 0; count -= 1) await submit()
    },
    delayed: () => submit(3),
    claim: what => claim(workers[random(workers.length)] as string[], 1 + random(4), what),
    succeed: async what => {
      const job = pick('running')
      if (job?.lease === undefined) return
      const declared = workers[random(workers.length)] as string[]
      const outcome = { workId: job.id, token: job.lease.token, durationMs: 1, value: { json: 1 } }
      job.state = 'succeeded'
      const { kinds, leases } = await completions.complete({ workerId: 'w', types: declared }, [outcome], 1)
      t.strictSame(kinds, ['succeeded'])
      checkTaken(leases, declared, 1, what)
    },
    fail: async () => {
      const job = pick('running')
      if (job?.lease === undefined) return
      const error = { code: 'handler_error', message: 'no' }
      const outcome = { workId: job.id, token: job.lease.token, durationMs: 1, error }
      const { kinds } = await completions.complete({ workerId: 'w', types: [] }, [outcome], 0)
      job.attempts += 1
      t.strictSame(kinds, [job.attempts < 3 ? 'retrying' : 'dead'])
      await sortWaiting(queue)
      if (job.attempts < 3) place(job)
      else job.state = 'dead'
    },
    unsupported: async () => {
      const job = pick('running')
      if (job?.lease === undefined) return
      const error = { code: 'type_unsupported', message: 'no' }
      const outcome = { workId: job.id, token: job.lease.token, durationMs: 1, error }
      const { kinds } = await completions.complete({ workerId: 'w', types: [] }, [outcome], 0)
      t.strictSame(kinds, ['requeued'])
      await sortWaiting(queue)
      place(job)
    },
    requeue: async () => {
      const job = pick('running')
      if (job?.lease === undefined) return
      t.equal(await claims.requeue([{ workId: job.id, token: job.lease.token }]), 1)
      await sortWaiting(queue)
      place(job)
    },
    lose: async () => {
      const job = pick('running')
      if (job === undefined) return
      await queue.redis.del(`${queue.jobKey(job.id)}:lock`)
      const { leases } = api.jobs.of('default')
      // The reaper of the queue does the same beside this, and may be the one that hands it back.
      await until(async () => {
        await leases.recoverLost()
        return (await queue.redis.lpos(queue.jobKey('active'), job.id)) === null
      })
      // Not counted against it: the worker is heard of again.
      await leases.heardFrom('w')
      await sortWaiting(queue)
      place(job)
    },
    cancel: async () => {
      const job = pick(random(2) === 0 ? 'waiting' : 'running')
      if (job === undefined) return
      await api.jobs.cancel(job.id, () => undefined)
      job.state = 'cancelled'
    },
    replay: async () => {
      const job = pick('dead')
      if (job === undefined) return
      await api.jobs.retry(job.id)
      await sortWaiting(queue)
      Object.assign(job, { attempts: 0, wasStarted: false })
      place(job)
    },
  }
  const names = ['submit', 'claim', 'claim', 'succeed', ...Object.keys(moves)]
  for (let step = 0; step < 400; step += 1) {
    const name = names[random(names.length)] as string
    await moves[name]?.(`step ${step}, ${name}`)
    const waiting = waitingFor(types)
    const expected = new Map<string, number>()
    for (const { type } of waiting) expected.set(type, (expected.get(type) ?? 0) + 1)
    t.same([...(await countByType(queue))].sort(), [...expected].sort(), `step ${step}, ${name}: what waits`)
    t.equal((await control.counts()).waiting, waiting.length)
    if (!t.passing()) return
  }
  const { jobs: listed } = await api.jobs.list('default', { state: 'waiting', limit: 1000 })
  t.same(new Set(listed.map(({ workId }) => workId)), new Set(waitingFor(types).map(({ id }) => id)))
  const load = await control.load(0, ['a', 'b'])
  t.equal(load.waiting, waitingFor(['a', 'b']).length)
  t.equal(load.unrunnable, waitingFor(['c', 'd']).length)
  await claim(types, 1000, 'all that is left')
  t.equal((await control.counts()).waiting, 0)
  t.same(await queue.redis.smembers(queue.keys.lanes), [], 'no lane is left behind')
})

t.test('those who wait in line get what is theirs, whoever came first', async t => {
  const api = await startTestApi(t)
  const { submitter, claims } = api.jobs.of('default')
  const signal = new AbortController().signal
  const wait = (workerId: string, declared: string[]) =>
    claims.claim({ workerId, types: declared, max: 1, waitMs: 60_000, signal })
  void wait('other', ['other'])
  const waiting = [wait('one', ['mine']), wait('two', ['mine', 'other'])]
  for (const _ of waiting)
    await submitter.submit({ workId: reserveWorkId('default'), type: 'mine', payload: { json: 1 }, attempts: 1 })
  const got = (await Promise.all(waiting)).flat()
  t.same(
    got.map(({ type, token }) => [type, token.split('/')[0]]),
    [
      ['mine', 'one'],
      ['mine', 'two'],
    ],
  )
})
