/** What the fault harness calls lost, doubled and wrong: on made-up facts. */
import t from 'tap'
import { judge, type Verdict } from './engine/checker.ts'
import type { Fact } from './engine/facts.ts'
import { Ledger } from './engine/ledger.ts'
import { readOptions } from './options.ts'
import { scenarios } from './scenarios.ts'

const accepted = (workId: string, sentMs: number, key?: string): Fact => ({
  ...{ kind: 'accepted', client: 'put0', sentMs, atMs: sentMs + 5, workId, expected: `of ${workId}` },
  ...{ durability: 'replicated', ...(key !== undefined && { key }) },
})
const plain = (atMs: number, workId: string, value = `of ${workId}`): Fact => ({
  ...{ kind: 'handedOut', client: 'pull0', askedMs: atMs - 100, atMs, results: [[workId, value]] },
})
const leased = (atMs: number, workId: string, leaseId: string): Fact => ({
  ...{ kind: 'handedOut', client: 'lease0', askedMs: atMs - 100, atMs, leaseId, leaseMs: 5000 },
  results: [[workId, `of ${workId}`]],
})
const acked = (atMs: number, workId: string, leaseId: string): Fact => ({
  ...{ kind: 'acked', client: 'lease0', atMs, leaseId, workIds: [workId] },
})

function verdictOn(facts: readonly Fact[], more: Partial<Parameters<typeof judge>[2]> = {}): Verdict {
  const ledger = new Ledger()
  ledger.begin('it')
  ledger.note(facts)
  const moments = { injectedMs: 1000, healedMs: 5000, endedMs: 10_000 }
  return judge('it', moments, { ledger, runs: new Map(), found: new Map(), ...more })
}

t.test('lost: an accepted job of which nobody has the value', async t => {
  t.match(verdictOn([accepted('x', 1), plain(50, 'x')]), { acked: 1, lost: 0, faults: [] })
  t.match(verdictOn([plain(50, 'x'), accepted('x', 1)]), { acked: 1, lost: 0, faults: [] }, 'in either order')
  t.match(verdictOn([accepted('x', 1)]), { lost: 1, faults: [/x.*not handed out/] })
  const found = (value: unknown) => ({ found: new Map([['x', { value }]]) })
  t.match(verdictOn([accepted('x', 1)], found('of x')), { lost: 0, reread: 1 }, 'it can still be read')
  t.match(verdictOn([accepted('x', 1)], found('of y')), { lost: 1 }, 'a wrong value is none')
  const missing = { found: new Map([['x', { missing: 'it is waiting' }]]) }
  t.match(verdictOn([accepted('x', 1)], missing), { lost: 1, faults: [/it is waiting/] })
  t.match(verdictOn([plain(50, 'x')]), { acked: 0, lost: 0, faults: [] }, 'a job that nobody was told of')
})

t.test('doubled: two replies, unless the first was a lease that ended unacked', async t => {
  const twice = (...facts: Fact[]): number => verdictOn([accepted('x', 1), ...facts]).doubled
  t.equal(twice(plain(50, 'x'), plain(60_000, 'x')), 1)
  t.equal(twice(plain(50, 'x'), leased(60_000, 'x', 'l')), 1)
  t.equal(twice(leased(50, 'x', 'l'), plain(3000, 'x')), 1, 'while the lease lasts')
  t.equal(twice(leased(50, 'x', 'l'), plain(6000, 'x')), 0, 'its time was over')
  t.equal(twice(leased(50, 'x', 'l'), acked(60, 'x', 'l'), plain(6000, 'x')), 1, 'after an ack never')
  t.equal(twice(leased(50, 'x', 'l'), leased(6000, 'x', 'm'), acked(6010, 'x', 'm')), 0)
  t.equal(verdictOn([plain(50, 'x'), plain(60, 'x')]).doubled, 1, 'also a job that nobody was told of')
})

t.test('wrong: values, keys, Work IDs', async t => {
  t.match(verdictOn([accepted('x', 1), plain(50, 'x', 'of y')]).faults, [/wrong value/])
  t.match(verdictOn([accepted('x', 1, 'k'), accepted('y', 2, 'k'), plain(50, 'x'), plain(50, 'y')]).faults, [
    /two Work IDs/,
  ])
  t.match(verdictOn([accepted('x', 1), accepted('x', 2), plain(50, 'x')]).faults, [/two jobs/])
  t.match(verdictOn([accepted('x', 1, 'k'), accepted('x', 2, 'k'), plain(50, 'x')]), { acked: 1, faults: [] })
})

t.test('times count from the fault, by what was sent after it', async t => {
  const before = accepted('x', 999)
  const other: Fact = { ...(accepted('z', 3000) as Extract<Fact, { kind: 'accepted' }>), client: 'put1' }
  const facts = [before, accepted('y', 2000), other, plain(4000, 'z'), plain(1001, 'x'), plain(4500, 'y')]
  const failed: Fact[] = [
    { kind: 'failed', call: 'put', client: 'put0', node: 'n', atMs: 1500, why: 'refused' },
    { kind: 'failed', call: 'pull', client: 'pull0', node: 'n', atMs: 1500, why: 503 },
  ]
  t.match(verdictOn([...facts, ...failed], { runs: new Map([['x', 3], ['y', 1]]) }), {
    ...{ firstAcceptMs: 1005, firstDoneMs: 3000, everyClientMs: 2005, longestGapMs: 6995, acceptedWhileBroken: 2 },
    ...{ wastedAttempts: 2, failedRequests: 1, failures: { 'pull 503': 1 } },
  }) // biome-ignore format: pairs
  t.notOk('firstAcceptMs' in verdictOn([before, plain(50, 'x')]), 'it did not come to that')
})

t.test('options and the list', async t => {
  t.match(readOptions([]), { short: false, only: [], jobsPerSecond: 320 })
  t.match(readOptions(['--only', 'x', '--only', 'y', '--json']), { only: ['x', 'y'], json: true })
  for (const wrong of [['--fast'], ['--only'], ['--network', 'moon'], ['--jobs-per-second', '0']])
    t.throws(() => readOptions(wrong), TypeError, wrong.join(' '))
  t.equal(new Set(scenarios.map(({ name }) => name)).size, scenarios.length, 'each name once')
})
