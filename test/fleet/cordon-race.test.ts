/**
 * Races of cordon, claim, complete, registration and termination, on a model of the atomic steps that they take. Each actor is
 * a list of steps; a run is one order of them all. What decides is the real `decide`. A killed job is one that a worker
 * was running when its instance was terminated.
 */
import fc from 'fast-check'
import t from 'tap'
import { decide } from '../../src/fleet/scaling/decide.ts'
import type { InstanceView } from '../../src/fleet/scaling/snapshot.ts'
import { pool, t0 } from '../support/snapshots.ts'

interface Model {
  registered: boolean
  /** On the worker: it may not claim. On the instance: nor may one that registers later. */
  drain: boolean
  instanceCordon: boolean
  /** Taken in Redis; and of those, handed to the worker, which runs them. */
  leases: number
  running: number
  waiting: number
  terminated: boolean
  killed: number
}

type Actor = Generator<void, void, void>

/** What may be left out, to see that the model notices. */
interface Protocol {
  readonly looksAgain: boolean
  readonly cordons: boolean
}

const sound: Protocol = { looksAgain: true, cordons: true }

function* register(model: Model): Actor {
  yield
  // One script: the heartbeat and the look at the cordon of the instance.
  if (model.terminated) return
  model.registered = true
  if (model.instanceCordon) model.drain = true
}

function* claim(model: Model, { looksAgain }: Protocol): Actor {
  if (!model.registered || model.drain || model.terminated) return
  yield
  if (model.waiting === 0) return
  model.waiting -= 1
  model.leases += 1
  yield
  if (looksAgain && model.drain) {
    yield
    model.leases -= 1
    model.waiting += 1
    return
  }
  yield
  // The reply: nobody is there to take it when the machine is gone, then the lease runs out.
  if (!model.terminated) model.running += 1
}

/** The end of a job, and the claim of the next one in the same call. */
function* complete(model: Model, protocol: Protocol): Actor {
  if (model.running === 0 || model.terminated) return
  model.running -= 1
  model.leases -= 1
  yield
  yield* claim(model, protocol)
}

function terminate(model: Model): void {
  model.terminated = true
  model.killed += model.running
}

const viewOf = (leases: number, sawDrain: boolean): InstanceView => ({
  id: 'i',
  state: sawDrain ? 'draining' : 'ready',
  launchedAt: t0 - 500_000,
  readyAt: t0 - 400_000,
  lastSeenAt: t0,
  slots: 2,
  leases,
  ...(leases === 0 && { idleSince: t0 - 90_000 }),
  ...(sawDrain && { drainingSince: t0 - 5000 }),
})

/** Two ticks: the first may drain, the second may end. Workers are read first, then leases. */
function* scaleIn(model: Model, protocol: Protocol): Actor {
  for (let tick = 0; tick < 3 && !model.terminated; tick += 1) {
    if (!model.registered) return yield* endUnbooted(model, protocol)
    const sawDrain = model.drain
    yield
    const { leases } = model
    yield
    const { actions } = decide(pool({ instances: [viewOf(leases, sawDrain)] }), t0)
    for (const { kind } of actions) {
      yield
      if (kind === 'drain') model.drain = true
      if (kind === 'terminate') terminate(model)
    }
    yield
  }
}

/** No worker was seen in time: cordon, look again, terminate. */
function* endUnbooted(model: Model, { cordons }: Protocol): Actor {
  const { actions } = decide(
    pool({ instances: [{ id: 'i', state: 'booting', launchedAt: t0 - 500_000, slots: 2, leases: 0 }] }),
    t0,
  )
  if (actions[0]?.reason !== 'boot-timeout') throw new Error('the model is out of date')
  yield
  if (cordons) {
    model.instanceCordon = true
    yield
    if (model.registered) {
      model.instanceCordon = false
      return
    }
    yield
  }
  terminate(model)
}

/** All actors, in the order that the numbers say, until none has a step left. */
function run(order: readonly number[], protocol: Protocol, boots: boolean): Model {
  const model: Model = {
    registered: !boots,
    drain: false,
    instanceCordon: false,
    leases: 0,
    running: 0,
    waiting: 3,
    terminated: false,
    killed: 0,
  }
  const actors = [
    scaleIn(model, protocol),
    claim(model, protocol),
    claim(model, protocol),
    complete(model, protocol),
    complete(model, protocol),
    scaleIn(model, protocol),
    ...(boots ? [register(model)] : []),
  ]
  for (const number of [...order, ...Array.from({ length: 100 }, (_, n) => n)]) {
    if (actors.length === 0) break
    const index = number % actors.length
    if (actors[index]?.next().done) actors.splice(index, 1)
  }
  return model
}

const orders = fc.array(fc.nat({ max: 419 }), { minLength: 10, maxLength: 45 })

const findKilled = (protocol: Protocol, numRuns: number): fc.RunDetails<[number[], boolean]> =>
  fc.check(
    fc.property(orders, fc.boolean(), (order, boots) => run(order, protocol, boots).killed === 0),
    { numRuns, seed: 7 },
  )

t.test('100,000 orders of their steps, and no job is killed', async t => {
  let ended = 0
  let worked = 0
  const details = fc.check(
    fc.property(orders, fc.boolean(), (order, boots) => {
      const model = run(order, sound, boots)
      if (model.terminated) ended += 1
      if (model.waiting < 3) worked += 1
      return model.killed === 0
    }),
    { numRuns: 100_000 },
  )
  t.notOk(details.failed, `${JSON.stringify(details.counterexample)} kills a job`)
  t.ok(ended > 20_000 && worked > 20_000, `${ended} ended with a termination, ${worked} with work taken`)
})

t.test('a step left out is found', async t => {
  t.ok(findKilled({ ...sound, looksAgain: false }, 20_000).failed, 'claims that do not look again')
  t.ok(findKilled({ ...sound, cordons: false }, 20_000).failed, 'instances that are ended without a cordon')
})
