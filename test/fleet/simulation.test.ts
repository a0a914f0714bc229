/**
 * Fleets over time, with boots that take long, prices and interruptions. With 500 instances, `decide` takes 0.1 ms at the
 * median, and 4 to 8 ms at the 99th percentile (2 cores, Node 20, others at work).
 */
import t from 'tap'
import { SimulatedPool } from '../support/simulated-pool.ts'

t.test('500 instances, with interruptions: all jobs are done, and the ceiling holds', async t => {
  const simulated = new SimulatedPool({
    settings: { maxWorkers: 500, slots: 2, bootTimeoutMs: 300_000 },
    serviceMs: 4000,
    bootMs: [30_000, 60_000],
  })
  let peak = 0
  // 250 jobs a second of four seconds keep 1,000 slots busy, which is all that there may be.
  for (let tick = 0; tick < 600; tick += 1) {
    if (tick > 100 && tick % 20 === 0) simulated.interrupt(0.05)
    simulated.step(tick < 400 ? 240 : 0)
    peak = Math.max(peak, simulated.ready)
  }
  t.ok(peak > 450, `${peak} ready at the peak`)
  t.ok(simulated.counts.interrupted > 200)
  t.equal(simulated.overCeiling, 0)
  t.equal(simulated.waiting, 0, 'all jobs were done')
})

t.test('a storm: a third of the fleet noticed each 10 s for a minute', async t => {
  const simulated = new SimulatedPool({
    settings: { maxWorkers: 100, slots: 2, idleTimeoutMs: 60_000, bootTimeoutMs: 300_000 },
    serviceMs: 4000,
    bootMs: [20_000, 30_000],
  })
  const arriving = 20
  for (let tick = 0; tick < 180; tick += 1) simulated.step(arriving)
  const before = { ...simulated.counts, ready: simulated.ready }
  t.ok(before.ready >= 40, `20 jobs a second of four seconds keep 40 workers busy: ${before.ready}`)
  let least = before.ready
  let drainedMeanwhile = 0
  for (let tick = 0; tick < 60; tick += 1) {
    if (tick % 10 === 0) simulated.interrupt(1 / 3)
    const { actions, desired } = simulated.step(arriving)
    if (tick === 0)
      t.match(actions.at(-1), { kind: 'launch', reason: 'interrupted' }, 'replaced in the tick of the notice')
    t.ok(simulated.serving >= desired, `wants ${desired}, has ${simulated.serving} ready or booting`)
    drainedMeanwhile += actions.filter(({ reason }) => reason === 'idle').length
    least = Math.min(least, simulated.ready)
  }
  const noticed = simulated.counts.interrupted - before.interrupted
  const launchedInStorm = simulated.counts.launched - before.launched
  let recoveredAfter = -1
  for (let tick = 0; tick < 300; tick += 1) {
    const { actions } = simulated.step(arriving)
    drainedMeanwhile += tick < 60 ? actions.filter(({ reason }) => reason === 'idle').length : 0
    if (recoveredAfter < 0 && simulated.ready >= 40 && simulated.waiting < arriving * 5) recoveredAfter = tick
  }
  const after = simulated.counts
  t.comment({ before, noticed, launchedInStorm, least, recoveredAfter, after, ready: simulated.ready })
  t.ok(noticed >= 40, `${noticed} were noticed`)
  t.equal(drainedMeanwhile, 0, 'nobody was let go for being idle while others were missing')
  t.ok(recoveredAfter >= 0 && recoveredAfter <= 60, `capacity was back ${recoveredAfter} s after the storm`)
  t.equal(simulated.overCeiling, 0)
  for (let tick = 0; tick < 300; tick += 1) simulated.step(0)
  t.equal(simulated.there, 0, 'and back to nothing')
  t.equal(simulated.waiting, 0)
})

t.test('a steady stream keeps its target wait though boots take long', async t => {
  const simulated = new SimulatedPool({
    settings: { maxWorkers: 50, slots: 2, bootTimeoutMs: 300_000 },
    serviceMs: 2000,
    bootMs: [40_000, 40_000],
  })
  let directions = 0
  let last = 0
  for (let tick = 0; tick < 600; tick += 1) {
    simulated.step(6)
    if (tick > 300) t.ok(simulated.waiting <= 30, `${simulated.waiting} wait`)
    const direction = Math.sign(simulated.there - last)
    if (tick > 300 && direction !== 0) directions += 1
    last = simulated.there
  }
  t.comment({ ...simulated.counts, there: simulated.there })
  t.ok(directions <= 6, `the size changed ${directions} times in five minutes`)
})
