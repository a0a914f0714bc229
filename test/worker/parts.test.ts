/** The parts of the worker that need no process and no clock. */
import t from 'tap'
import type { Lease } from '../../src/contract/worker-protocol.ts'
import { Backoff } from '../../src/retry.ts'
import { completionText } from '../../src/worker/agent/reporter.ts'
import { Attempt } from '../../src/worker/attempts/attempt.ts'
import { AttemptTable } from '../../src/worker/attempts/attempt-table.ts'
import { toLogLines } from '../../src/worker/protocol/log-lines.ts'
import {
  DurationEstimate,
  PrefetchBuffer,
  type PrefetchSnapshot,
  prefetchCount,
} from '../../src/worker/slots/prefetch-buffer.ts'
import { describeDeath } from '../../src/worker/slots/slot-process.ts'

const lease = (workId: string, more: Partial<Lease> = {}): Lease => ({
  workId,
  token: `token of ${workId}`,
  type: 'noop',
  attempt: 1,
  attempts: 3,
  payload: { json: null },
  params: {},
  timeoutMs: 1000,
  ...more,
})

t.test('prefetch', async t => {
  const table: [what: string, snapshot: PrefetchSnapshot, expected: number][] = [
    ['unknown jobs: a free slot for each', { openSlots: 2, heldCount: 0, expectedMs: Number.POSITIVE_INFINITY }, 2],
    ['long jobs, one slot taken', { openSlots: 4, heldCount: 1, expectedMs: 10_000 }, 3],
    ['long jobs, all taken', { openSlots: 2, heldCount: 2, expectedMs: 51 }, 0],
    ['short jobs: 200 ms ahead', { openSlots: 2, heldCount: 0, expectedMs: 50 }, 8],
    ['short jobs, enough held', { openSlots: 2, heldCount: 9, expectedMs: 50 }, 0],
    ['tiny jobs: no more than 500', { openSlots: 8, heldCount: 100, expectedMs: 0 }, 400],
    ['no slot', { openSlots: 0, heldCount: 0, expectedMs: 0.1 }, 0],
  ]
  for (const [what, snapshot, expected] of table) t.equal(prefetchCount(snapshot), expected, what)
})

t.test('durations: one long job is believed at once, short ones slowly', async t => {
  const durations = new DurationEstimate()
  t.equal(durations.ofTypeMs('a'), Number.POSITIVE_INFINITY)
  for (let count = 0; count < 100; count++) durations.observe('a', 1)
  t.equal(durations.ofTypeMs('a'), 1)
  t.equal(durations.ofTypeMs('b'), Number.POSITIVE_INFINITY)
  durations.observe('a', 1001)
  t.ok(durations.ofTypeMs('a') > 200)
  durations.observe('a', 1)
  t.ok(durations.ofTypeMs('a') > 200, 'one short job changes little')
  durations.forgetOverall()
  t.equal(durations.overallMs, Number.POSITIVE_INFINITY)
})

t.test('a buffer gives short jobs out together, in order', async t => {
  const make = (names: string, more: Partial<Lease> = {}): Attempt[] =>
    [...names].map(name => new Attempt(lease(name, more), 0))
  const names = (attempts: Attempt[]): string => attempts.map(({ ref }) => ref.workId).join('')
  const buffer = new PrefetchBuffer()
  buffer.append(make('abcdef'))
  t.equal(names(buffer.takeBatch(1, true)), 'a', 'unknown: one at a time')
  buffer.observe(new Attempt(lease('z'), 0), 1, 0)
  t.equal(names(buffer.takeBatch(2, true)), 'bcd', 'a fair share')
  buffer.append(make('L', { type: 'long' }))
  t.equal(names(buffer.takeBatch(1, true)), 'ef', 'a long one does not go along')
  t.notOk(buffer.isNextShort(true))
  t.equal(names(buffer.takeBatch(1, true)), 'L')
  buffer.append(make('0123456789abcdefghij'))
  t.equal(names(buffer.takeBatch(1, true)), '0123456789', '10 ms together')
  buffer.prepend(make('x'))
  const [taken] = buffer.takeBatch(100, true) as [Attempt]
  t.equal(taken.ref.workId, 'x')
  t.notOk(buffer.remove(taken))
  t.equal(names(buffer.takeClaimedBefore(0)), '')
  t.equal(names(buffer.takeClaimedBefore(1)), 'abcdefghij')
  t.equal(buffer.expectedMs(9000), 1)
  t.equal(buffer.expectedMs(11_000), Number.POSITIVE_INFINITY, 'after an idle time')
})

t.test('an isolated job goes alone, into a fresh slot only; others pass it by', async t => {
  const one = (name: string, type = 'noop'): Attempt => new Attempt(lease(name, { type }), 0)
  const names = (attempts: Attempt[]): string => attempts.map(({ ref }) => ref.workId).join('')
  const buffer = new PrefetchBuffer(({ lease }) => lease.type === 'own')
  for (const type of ['noop', 'own']) buffer.observe(one('z', type), 1, 0)
  buffer.append([one('A', 'own'), one('b'), one('c'), one('D', 'own')])
  t.equal(buffer.isolatedCount, 2)
  t.ok(buffer.isNextShort(false))
  t.notOk(buffer.isNextShort(true), 'however short it is')
  t.equal(names(buffer.takeBatch(1, false)), 'bc')
  t.equal(names(buffer.takeBatch(1, false)), '')
  t.equal(names(buffer.takeBatch(1, true)), 'A')
  t.equal(names(buffer.takeBatch(1, true)), 'D')
  t.equal(names(buffer.takeBatch(1, true)), '')
})

t.test('how a slot ended', async t => {
  const end = { code: null, signal: null, heapMb: 64, oomKills: 0, stderrTail: [] }
  t.match(describeDeath({ ...end, code: 3 }), { code: 'crash', message: /exit code 3$/ })
  t.match(describeDeath({ ...end, signal: 'SIGKILL' }), { code: 'crash', message: /lack of memory/ })
  t.match(describeDeath({ ...end, signal: 'SIGKILL', oomKills: 1 }), {
    code: 'out_of_memory',
    message: /most likely by the kernel/,
  })
  t.match(describeDeath({ ...end, signal: 'SIGSEGV', oomKills: 1 }), { code: 'crash' }, 'that is not how it kills')
  t.match(describeDeath({ ...end, signal: 'SIGSEGV', stderrTail: ['', 'ouch'] }), {
    code: 'crash',
    message: /SIGSEGV.*last words:\nouch$/s,
  })
  const words = ['FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory']
  t.match(describeDeath({ ...end, signal: 'SIGABRT', stderrTail: words }), { code: 'out_of_memory', message: /64 MB/ })
  t.match(describeDeath({ ...end, code: 134, stderrTail: words }), { code: 'out_of_memory' })
  t.match(
    describeDeath({ ...end, code: 1, stderrTail: words }),
    { code: 'crash' },
    'a handler may print the same words',
  )
})

t.test('log lines', async t => {
  t.same(toLogLines('one\ntwo\n'), ['one', 'two'])
  t.same(toLogLines(''), [''])
  for (const long of ['a'.repeat(9000), '€'.repeat(9000), `b${'😀'.repeat(5000)}`]) {
    const [line] = toLogLines(long) as [string]
    t.ok(Buffer.byteLength(line) <= 8192 && Buffer.byteLength(line) > 8180)
    t.ok(line.endsWith('…') && long.startsWith(line.slice(0, -1)), 'cut between two characters')
  }
  const attempt = new Attempt(lease('w'), 0)
  attempt.addLog(Array.from({ length: 1200 }, (_, line) => `${line}`))
  attempt.addLog(['late'], 5)
  const some = attempt.takeLogs(10)
  t.same(some.slice(0, 2), ['0', '1'])
  attempt.requeueLogs(some)
  const all = attempt.closeLogs() as string[]
  t.equal(all.length, 1001)
  t.equal(all[0], '0')
  t.equal(all.at(-1), '… 206 more lines dropped')
})

t.test('completions are valid JSON', async t => {
  const attempt = new Attempt(lease('w"1', { type: 'a"b' }), 0)
  attempt.addLog(['"quoted"'])
  const ref = { workId: 'w"1', token: 'token of w"1', type: 'a"b' }
  t.same(JSON.parse(completionText(attempt, 1.5, { value: { jsonText: '{"a":[1]}' } })), {
    ...ref,
    durationMs: 1.5,
    logs: ['"quoted"'],
    value: { json: { a: [1] } },
  })
  t.same(JSON.parse(completionText(attempt, 0, { value: { content: { base64: 'AA==' } } })), {
    ...ref,
    durationMs: 0,
    value: { base64: 'AA==' },
  })
  const failed = JSON.parse(completionText(attempt, 0, { error: { code: 'crash', message: 'm'.repeat(100_000) } })) as {
    error: { message: string }
  }
  t.ok(failed.error.message.length < 20_000)
})

t.test('a lease is good until it must have run out', async t => {
  const none = (): void => undefined
  const events = { onOutcome: none, onRequeue: none, onUpdate: none, onCheckpoint: none, onRoom: none }
  const leases = new AttemptTable(events)
  const nowMs = performance.now()
  const [fresh, old] = [new Attempt(lease('fresh'), nowMs), new Attempt(lease('old'), nowMs - 60_000)]
  leases.add(fresh)
  leases.add(old)
  t.ok(leases.isGood(fresh))
  t.notOk(leases.isGood(old))
  leases.extended(nowMs)
  t.ok(leases.isGood(old))
  t.ok(leases.hasUncovered(nowMs - 70_000, 10_000))
  t.notOk(leases.hasUncovered(nowMs, 0))
  t.equal(leases.find({ workId: 'old', token: 'another' }), undefined)
  leases.remove([old])
  t.same(leases.refs(), [fresh.ref])
})

t.test('pauses grow to a limit', async t => {
  const backoff = new Backoff(100, 1000)
  const waits = Array.from({ length: 8 }, () => backoff.nextMs())
  t.ok((waits[0] as number) <= 100 && (waits[0] as number) >= 50)
  t.ok(waits.every(waitMs => waitMs <= 1000) && (waits[7] as number) >= 500)
  t.ok(backoff.nextMs(5000) >= 5000)
  backoff.reset()
  t.ok(backoff.nextMs() <= 100)
})
