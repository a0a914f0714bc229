/** The model names each kind of fault, and finds none in a history that is right: a drive that cannot fail is worth nothing. */
import t from 'tap'
import type { HandOut, JobLook, JobSpec } from './facts.ts'
import { IdleWait, type Looks } from './idle-wait.ts'
import { leaked } from './left.ts'
import { Model } from './model.ts'
import { bytesValue, jsonValue } from './values.ts'

const t0 = 1_800_000_000_000
const options = { startedAt: t0, leaseMs: 5000, slackMs: 30_000, looksAreFinal: true }
const adds: JobSpec = {
  ...{ queue: 'default', type: 'add', timeoutMs: 10_000 },
  ending: { value: jsonValue(3), attempts: 1 },
}
const fails: JobSpec = { ...adds, type: 'fail', ending: { errors: ['handler_error'], attempts: 2 } }

function withJob(spec = adds): Model {
  const model = new Model(options)
  model.accepted('job', spec, t0)
  return model
}
const seen = (state: JobLook['state'], more: Partial<JobLook> = {}): JobLook => ({
  ...{ workId: 'job', state, attemptsMade: state === 'succeeded' ? 1 : 0, attempts: 1, lostLeases: 0 },
  ...more,
})
const given = (at: number, more: Partial<HandOut> = {}): HandOut => ({
  ...{ workId: 'job', outcome: { value: jsonValue(3) }, askedAt: at - 10, at },
  ...more,
})
const lease = { id: 'default/lease', ms: 3000 }
const kindsOf = (model: Model): string[] => model.faults.map(({ kind }) => kind)

t.test('a job that goes its way is no fault', async t => {
  const model = withJob()
  model.looked(seen('waiting'), t0 + 10, t0 + 20)
  model.looked(seen('running', { startedAt: new Date(t0 + 30).toISOString() }), t0 + 100, t0 + 110)
  model.looked(seen('succeeded', { collection: 'uncollected' }), t0 + 200, t0 + 210)
  model.handedOut(given(t0 + 1000, { lease }))
  model.handedOut(given(t0 + 5000, { lease: { id: 'default/other', ms: 3000 } }))
  model.ackAsked('job', t0 + 5100)
  model.ackAnswered('job', 'acked', 'default/other', t0 + 5110)
  model.settled(t0 + 10_000)
  t.strictSame(model.faults, [])
})

t.test('lost: it has succeeded and was handed out to nobody', async t => {
  const model = withJob()
  model.looked(seen('succeeded', { collection: 'acked' }), t0 + 200, t0 + 210)
  model.settled(t0 + 60_000)
  t.match(model.faults, [{ kind: 'lost', workId: 'job' }])
  t.match(model.history.of('job').join('\n'), /accepted: add(.|\n)*seen succeeded/, 'with its history')
})

t.test('lost: its Work ID is not known any more', async t => {
  const model = withJob()
  model.missing('job', t0 + 100, t0 + 110)
  t.strictSame(kindsOf(model), ['lost'])
})

t.test('a reply that broke off excuses what it may have carried', async t => {
  const model = withJob()
  model.looked(seen('succeeded', { collection: 'acked' }), t0 + 200, t0 + 210)
  model.pullDoubted({ queue: 'default', at: t0 + 150, top: 1 })
  model.settled(t0 + 60_000)
  t.strictSame(model.faults, [])
  model.accepted('next', adds, t0 + 5)
  model.looked(seen('succeeded', { workId: 'next', collection: 'acked' }), t0 + 200, t0 + 210)
  model.settled(t0 + 60_000)
  t.match(model.faults, [{ kind: 'lost' }], 'no more than it asked for')
  for (const [what, pull] of Object.entries({
    'of another queue': { queue: 'second', at: t0 + 150, top: 9 },
    'that ended before': { queue: 'default', at: t0 - 1, top: 9 },
  })) {
    const other = withJob()
    other.looked(seen('succeeded', { collection: 'acked' }), t0 + 200, t0 + 210)
    other.pullDoubted(pull)
    other.settled(t0 + 60_000)
    t.strictSame(kindsOf(other), ['lost'], `nor by a pull ${what}`)
  }
})

t.test('doubled: handed out again after it was collected', async t => {
  const model = withJob()
  model.handedOut(given(t0 + 1000))
  model.handedOut(given(t0 + 90_000))
  t.strictSame(kindsOf(model), ['doubled'])
})

t.test('doubled: handed out while somebody holds it', async t => {
  const model = withJob()
  model.handedOut(given(t0 + 1000, { lease }))
  model.handedOut(given(t0 + 2000))
  t.strictSame(kindsOf(model), ['doubled'])
})

t.test('doubled: one Work ID for two jobs', async t => {
  const model = withJob()
  model.accepted('job', adds, t0 + 5)
  t.strictSame(kindsOf(model), ['doubled'])
})

t.test('wrong value', async t => {
  const model = withJob()
  model.handedOut(given(t0 + 1000, { outcome: { value: jsonValue(4) } }))
  t.strictSame(kindsOf(model), ['wrong value'])
  const bytes = withJob({ ...adds, ending: { value: bytesValue(Buffer.from('right')), attempts: 1 } })
  bytes.handedOut({ workId: 'job', askedAt: t0, at: t0 + 1 })
  bytes.valued('job', bytesValue(Buffer.from('wrong')), t0 + 10)
  t.strictSame(kindsOf(bytes), ['wrong value'])
})

t.test('wrong value: a version that was not deployed between submission and end', async t => {
  const spec: JobSpec = { ...adds, type: 'd.version', ending: { value: { version: 'deployed then' }, attempts: 1 } }
  const lagMs = options.slackMs / 15
  const judged = (version: unknown, at: number): string[] => {
    const model = withJob(spec)
    model.versions.asked(1, t0 - lagMs - 50)
    model.versions.answered(1, t0 - lagMs - 20)
    model.versions.asked(2, t0 + 500)
    model.versions.answered(2, t0 + 600)
    // Nobody knows whether it is in force.
    model.versions.asked(3, t0 + 700)
    model.handedOut(given(at, { outcome: { value: jsonValue(version) } }))
    return kindsOf(model)
  }
  t.strictSame(judged(1, t0 + 100), [])
  t.strictSame(judged(2, t0 + 700), [])
  t.strictSame(judged(1, t0 + 700), [], 'it may have been handed out long after its end')
  t.strictSame(judged(3, t0 + 800), [])
  t.strictSame(judged(0, t0 + 100), ['wrong value'], 'replaced long before')
  t.strictSame(judged(2, t0 + 400), ['wrong value'], 'not asked for yet')
  t.strictSame(judged(4, t0 + 800), ['wrong value'], 'never deployed')
  t.strictSame(judged('1', t0 + 100), ['wrong value'])
})

t.test('wrong outcome: dead instead of a value, and the other way round', async t => {
  const model = withJob()
  const error = { code: 'handler_error', message: 'left over' }
  model.looked(seen('dead', { attemptsMade: 1, error }), t0 + 100, t0 + 110)
  t.strictSame(kindsOf(model), ['wrong outcome'])
  const dead = withJob(fails)
  dead.handedOut(given(t0 + 1000))
  t.strictSame(kindsOf(dead), ['wrong outcome'])
  const poisoned = withJob(fails)
  poisoned.looked(seen('dead', { error: { code: 'workers_lost', message: 'three' } }), t0 + 100, t0 + 110)
  t.strictSame(kindsOf(poisoned), ['wrong outcome'], 'nobody killed a worker')
})

t.test('stuck: running beyond its limit, and over at no time', async t => {
  const model = withJob()
  model.looked(seen('running', { startedAt: new Date(t0).toISOString() }), t0 + 44_000, t0 + 44_100)
  t.strictSame(kindsOf(model), [], 'limit, lease and slack')
  model.looked(seen('running', { startedAt: new Date(t0).toISOString() }), t0 + 46_000, t0 + 46_100)
  t.strictSame(kindsOf(model), ['stuck'])
  const waits = withJob()
  waits.looked(seen('waiting'), t0 + 90_000, t0 + 90_010)
  waits.settled(t0 + 90_020)
  t.strictSame(kindsOf(waits), ['stuck'])
})

t.test('stuck: it waits while a worker is idle', async t => {
  const idleWait = new IdleWait(10_000)
  const waiting = [{ workId: 'job', queue: 'default', type: 'add' }]
  const worker = { workerId: 'w', queue: 'default', types: ['add'] }
  const look = (at: number, more: Partial<Looks> = {}) =>
    idleWait.look({ at, idleWorkers: [worker], waiting, closedQueues: new Set(), ...more })
  t.strictSame(look(t0), [])
  t.strictSame(look(t0 + 9000), [])
  t.match(look(t0 + 11_000), [{ workId: 'job', sentence: /11000 ms while the worker w/ }])
  for (const [what, more] of Object.entries({
    'the queue is paused': { closedQueues: new Set(['default']) },
    'the worker cannot': { idleWorkers: [{ ...worker, types: ['other'] }] },
    'another one is idle now': { idleWorkers: [{ ...worker, workerId: 'other' }] },
    'the job was taken': { waiting: [] },
  })) {
    look(t0 + 12_000, more)
    t.strictSame(look(t0 + 20_000), [], what)
  }
})

t.test('came back: a cancelled job, and one that had ended', async t => {
  const model = withJob()
  model.cancelAsked('job', t0 + 100)
  model.cancelAnswered('job', 'cancelled', t0 + 100, t0 + 110)
  model.handedOut(given(t0 + 5000))
  t.strictSame(kindsOf(model), ['came back'])
  const again = withJob()
  again.looked(seen('succeeded'), t0 + 100, t0 + 110)
  again.looked(seen('running'), t0 + 105, t0 + 120)
  t.strictSame(kindsOf(again), [], 'asked for before the end was known')
  again.looked(seen('running'), t0 + 200, t0 + 210)
  t.strictSame(kindsOf(again), ['came back'])
})

t.test('came back: a failure that was handed out, and a cancel that was answered', async t => {
  const spec: JobSpec = { ...adds, ending: { errors: ['handler_error'], attempts: 1 } }
  const failure = { outcome: { error: { code: 'handler_error', message: 'no' } } }
  const after = withJob(spec)
  after.handedOut(given(t0 + 50, failure))
  after.cancelAsked('job', t0 + 100)
  after.cancelAnswered('job', 'failed', t0 + 100, t0 + 110)
  after.looked(seen('dead', { attemptsMade: 1 }), t0 + 120, t0 + 130)
  t.strictSame(kindsOf(after), [], 'it was refused')
  after.cancelAnswered('job', 'cancelled', t0 + 140, t0 + 150)
  t.strictSame(kindsOf(after), ['came back'])
  const before = withJob(spec)
  before.cancelAsked('job', t0 + 100)
  before.cancelAnswered('job', 'cancelled', t0 + 100, t0 + 110)
  before.handedOut(given(t0 + 5000, failure))
  t.strictSame(kindsOf(before), ['came back'])
})

t.test('lost: cancelled, and nobody asked', async t => {
  const model = withJob()
  model.looked(seen('cancelled'), t0 + 100, t0 + 110)
  t.strictSame(kindsOf(model), ['lost'])
})

t.test('attempt spent by an interruption', async t => {
  const model = withJob()
  model.disturbed('worker', t0 + 50)
  model.looked(seen('succeeded', { attemptsMade: 2, attempts: 3 }), t0 + 100, t0 + 110)
  t.strictSame(kindsOf(model), ['attempt spent'])
  const crashed = withJob()
  crashed.disturbed('slot', t0 + 50)
  crashed.looked(seen('succeeded', { attemptsMade: 2, attempts: 3 }), t0 + 100, t0 + 110)
  t.strictSame(kindsOf(crashed), [], 'but a slot that is killed is an attempt')
})

t.test('unknown job: a doubtful submission excuses the one job that it may have been', async t => {
  const { queue, type, ending } = adds
  const stranger = (workId = 'other'): JobLook => seen('succeeded', { workId, queue, type })
  const withStrangers = (...workIds: string[]): Model => {
    const model = withJob()
    model.handedOut(given(t0 + 100))
    for (const workId of workIds) model.looked(stranger(workId), t0 + 100, t0 + 110)
    return model
  }
  const right = withStrangers('other')
  right.submissionDoubted({ queue, type, ending })
  right.handedOut(given(t0 + 200, { workId: 'other', queue }))
  right.settled(t0 + 1000)
  t.strictSame(kindsOf(right), [])

  const none = withStrangers('other')
  none.settled(t0 + 1000)
  t.match(none.faults, [{ kind: 'unknown job', workId: 'other' }])

  const two = withStrangers('other', 'one more')
  two.submissionDoubted({ queue, type, ending })
  two.settled(t0 + 1000)
  t.strictSame(kindsOf(two), ['unknown job'], 'one, not two')

  for (const [what, doubt] of Object.entries({
    queue: { queue: 'second', type, ending },
    type: { queue, type: 'fail', ending },
    value: { queue, type, ending: { value: jsonValue(4), attempts: 1 } },
    end: { queue, type, ending: fails.ending },
  })) {
    const other = withStrangers('other')
    other.submissionDoubted(doubt)
    other.handedOut(given(t0 + 200, { workId: 'other', queue }))
    other.settled(t0 + 1000)
    t.strictSame(kindsOf(other), ['unknown job'], `not one of another ${what}`)
  }

  const damaged = withStrangers('other')
  damaged.acceptedUnjudged('other')
  damaged.settled(t0 + 1000)
  t.strictSame(kindsOf(damaged), [], 'one that was accepted with a damaged body is known')
})

t.test('unknown job: each doubt goes to the job that needs it', async t => {
  const model = withJob()
  model.handedOut(given(t0 + 100))
  model.submissionDoubted({ queue: 'default', type: 'add' })
  model.submissionDoubted({ queue: 'default', type: 'add', ending: adds.ending })
  for (const [workId, sum] of [
    ['three', 3],
    ['four', 4],
  ] as const)
    model.handedOut(given(t0 + 100, { workId, queue: 'default', outcome: { value: jsonValue(sum) } }))
  model.settled(t0 + 1000)
  t.strictSame(kindsOf(model), [])
})

t.test('leaked: jobs, keys and files that are left', async t => {
  const nothing = {
    jobs: [],
    keys: ['{muster}:workers', '{muster:default}:stats', '{muster:default}:lane:meta'],
    files: [],
  }
  t.strictSame(leaked(nothing, 0), [], 'what a deployment has without a job')
  t.match(leaked({ ...nothing, jobs: ['w'] }, 0), ['1 are left: job w'])
  t.match(leaked({ ...nothing, keys: [...nothing.keys, '{muster:default}:job:w'] }, 0), [
    '1 are left: key {muster:default}:job:w',
  ])
  const files = ['payload-1', 'result-2']
  t.strictSame(leaked({ ...nothing, files }, 2), [])
  t.match(leaked({ ...nothing, files }, 1), [/^2 files are left, where 1 may be: payload-1, result-2$/])
})

t.test('a job that is seen before the answer to its submission is read is no unknown one', async t => {
  const early = new Model(options)
  early.looked(seen('waiting'), t0 + 1, t0 + 2)
  early.handedOut(given(t0 + 20))
  early.accepted('job', adds, t0 + 30)
  early.settled(t0 + 1000)
  t.strictSame(kindsOf(early), [])
})

t.test('a replayed job dies, and is handed out, once more', async t => {
  const model = withJob(fails)
  const outcome = { error: { code: 'handler_error', message: 'no' } }
  model.handedOut(given(t0 + 100, { outcome }))
  model.replayAsked('job', t0 + 200)
  model.replayAnswered('job', 'waiting', t0 + 210)
  model.looked(seen('waiting', { attempts: 2 }), t0 + 300, t0 + 310)
  model.handedOut(given(t0 + 400, { outcome }))
  model.looked(seen('dead', { attemptsMade: 2, attempts: 2, error: outcome.error }), t0 + 500, t0 + 510)
  model.settled(t0 + 1000)
  t.strictSame(model.faults, [])
  const twice = withJob(fails)
  twice.handedOut(given(t0 + 100, { outcome }))
  twice.handedOut(given(t0 + 200, { outcome }))
  t.strictSame(kindsOf(twice), ['doubled'])
})
