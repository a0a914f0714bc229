/** The pure parts of the benchmark: what it is told, and how it sums up. */
import t from 'tap'
import type { Figures } from '../../bench/figures.ts'
import { readOptions } from '../../bench/options.ts'
import { summarize, toJson, toTable } from '../../bench/report.ts'
import { percentile, ratiosOf, spreadOf } from '../../bench/statistics.ts'

const figures: Figures = {
  jobsPerRound: 1000,
  elapsedMs: {
    enqueue: [100, 200, 125],
    bullAdd: [50, 150, 100],
    bullAddBulk: [40, 40, 40],
    endToEnd: [200, 400, 250],
    bullWork: [100, 100, 100],
    passThrough: [500, 250, 400],
  },
  bytes: { waiting: 700.4, finished: 1000, bullWaiting: 600, bullFinished: 900 },
  idleLatenciesMs: [3, 1, 2],
  halfLoad: { jobsPerSecond: 2000, latenciesMs: [10, 30, 20] },
  hash: { nsPerIteration: [160, 170], pythonNsPerIteration: [320, 340] },
}

t.test('options', async t => {
  t.same(readOptions([]), { json: false, quick: false, short: false, help: false })
  t.same(readOptions(['--json', '--quick', '--profile', 'out']), {
    json: true,
    quick: true,
    short: false,
    help: false,
    profile: 'out',
  })
  for (const wrong of [['--fast'], ['extra'], ['--profile'], ['--json=1']])
    t.throws(() => readOptions(wrong), { code: /^ERR_PARSE_ARGS/ }, wrong.join(' '))
})

t.test('statistics', async t => {
  t.same(spreadOf([30, 10, 20]), { median: 20, min: 10, max: 30 })
  t.equal(percentile([1, 2], 50), 1.5, 'between two values')
  t.equal(percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0], 90), 9, 'sorted by number, not by text')
  t.equal(percentile([5], 99), 5)
  t.throws(() => spreadOf([]), RangeError)
  t.same(ratiosOf([[1, 2], [3, 4]]), [0.5, 0.75]) // biome-ignore format: pairs
})

t.test('a summary compares rounds pair by pair, speeds with speeds', async t => {
  const summary = summarize(figures)
  t.same(summary.enqueueJobsPerSecond, { median: 8000, min: 5000, max: 10_000 })
  t.same(summary.enqueueRatio, { median: 0.75, min: 0.5, max: 0.8 }, 'half as fast, three quarters, four fifths')
  t.same(summary.endToEndRatio, { median: 0.4, min: 0.25, max: 0.5 })
  t.same(summary.sha512Ratio, { median: 0.5, min: 0.5, max: 0.5 }, 'times, so that less is better')
  t.match(summary, {
    idleLatencyP50Ms: 2,
    idleLatencyP99Ms: 2.98,
    halfLoadLatencyP50Ms: 20,
    halfLoadJobsPerSecond: 2000,
  })
})

t.test('JSON: medians under plain names, spreads beside them, goals judged', async t => {
  const json = toJson(summarize(figures))
  t.match(json, {
    enqueueRatio: 0.75,
    endToEndRatio: 0.4,
    sha512NsPerIteration: 165,
    waitingJobBytes: 700,
    spreads: { enqueueRatio: { min: 0.5, max: 0.8 } },
  })
  t.same(json.reached, { enqueueRatio: true, endToEndRatio: false, sha512Ratio: true, idleLatencyP50Ms: true })
  t.same(JSON.parse(JSON.stringify(json)), json, 'nothing is lost on the way')
})

t.test('the table shows every figure and what became of the goals', async t => {
  const table = toTable(summarize(figures))
  t.match(table, /PUT \/enqueue, 64 connections +8,000 jobs\/s +5,000 – 10,000\n/)
  t.match(table, /ours \/ BullMQ add +0\.75 × .*goal ≥ 0\.6: reached\n/)
  t.match(table, /ours \/ BullMQ Worker +0\.4 × .*goal ≥ 0\.5: not reached\n/)
  t.match(table, /ours \/ Python +0\.5 × .*goal ≤ 0\.6: reached\n/)
  t.equal(table.split('\n').filter(line => line.startsWith('  ')).length, Object.keys(summarize(figures)).length)
})

t.test('without Python its figures are absent, and the table says why', async t => {
  const summary = summarize({ ...figures, hash: { nsPerIteration: [160], pythonNsPerIteration: [] } })
  t.notOk('sha512Ratio' in toJson(summary))
  t.match(toTable(summary), /ours \/ Python +no python3 here/)
})
