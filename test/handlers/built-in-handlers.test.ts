/** The small built-in types: sleep, primes, countToThree, noop. */
import t from 'tap'
import { countToThree } from '../../src/handlers/demo/count-to-three.ts'
import { noop } from '../../src/handlers/demo/noop.ts'
import { primes } from '../../src/handlers/demo/primes.ts'
import { sleep } from '../../src/handlers/demo/sleep.ts'
import { RecordingContext } from './recording-context.ts'

const primesBelow = async (below: number): Promise<unknown> => primes.handle({ below }, new RecordingContext())

/** Aborts when the event loop turns, so that a handler which never yields is never stopped. */
const abortSoon = (reason: Error): AbortSignal => {
  const controller = new AbortController()
  setImmediate(() => controller.abort(reason))
  return controller.signal
}

t.test('primes: known counts, and the largest prime', async t => {
  const known: [below: number, count: number, largest: number | null][] = [
    [2, 0, null],
    [3, 1, 2],
    [4, 2, 3],
    [5, 2, 3],
    [6, 3, 5],
    [9, 4, 7],
    [10, 4, 7],
    [25, 9, 23],
    [26, 9, 23],
    [100, 25, 97],
    [1000, 168, 997],
    [65_537, 6542, 65_521],
    [65_538, 6543, 65_537],
    [1_000_000, 78_498, 999_983],
    [10_000_000, 664_579, 9_999_991],
  ]
  for (const [below, count, largest] of known) t.same(await primesBelow(below), { count, largest }, `below ${below}`)
})

t.test('primes: goes on from a checkpoint to the same answer', async t => {
  const whole = { count: 78_498, largest: 999_983 }
  for (const from of [1, 5, 1000, 32_768, 400_000, 499_999]) {
    // Odd numbers with an index below `from` are those below 2 × from.
    const found = (await primesBelow(2 * from)) as { count: number; largest: number | null }
    const counted = from === 1 ? { count: 1, largest: 2 } : found
    const context = new RecordingContext()
    context.lastCheckpoint = Buffer.from(JSON.stringify({ from, ...counted }))
    t.same(await primes.handle({ below: 1_000_000 }, context), whole, `from ${from}`)
    t.ok((context.fractions[0] ?? 1) > (2 * from) / 1_000_000, 'and does not begin again')
  }
  // Time flies, so that it leaves some.
  const { now } = performance
  t.teardown(() => {
    performance.now = now
  })
  performance.now = () => now.call(performance) * 100
  const busy = new RecordingContext()
  t.same(await primes.handle({ below: 20_000_000 }, busy), { count: 1_270_607, largest: 19_999_999 })
  t.ok(busy.checkpoints.length > 0)
  for (const left of busy.checkpoints) {
    const next = new RecordingContext()
    next.lastCheckpoint = left
    t.same(await primes.handle({ below: 20_000_000 }, next), { count: 1_270_607, largest: 19_999_999 })
  }
})

t.test('primes: agrees with trial division for every small limit and around the edges of segments', async t => {
  const isPrime = (number: number): boolean => {
    for (let divisor = 2; divisor * divisor <= number; divisor += 1) if (number % divisor === 0) return false
    return number >= 2
  }
  const limits = new Set([...Array(400).keys()].map(index => index + 2))
  for (const edge of [65_536, 131_072, 196_608]) for (let near = -3; near <= 3; near += 1) limits.add(edge + near)
  let count = 0
  let largest: number | null = null
  for (let below = 2; below <= Math.max(...limits); below += 1) {
    if (limits.has(below)) {
      const found = await primesBelow(below)
      if (JSON.stringify(found) !== JSON.stringify({ count, largest }))
        t.same(found, { count, largest }, `below ${below}`)
    }
    if (isPrime(below)) {
      count += 1
      largest = below
    }
  }
  t.equal(limits.size, 421)
})

t.test('primes: tells rising progress, yields, and ends with the reason of a cancel', async t => {
  const context = new RecordingContext()
  await primes.handle({ below: 30_000_000 }, context)
  t.equal(context.faultOfProgress(), undefined)
  t.ok(context.fractions.length > 2, `${context.fractions.length} reports`)

  const reason = new Error('enough')
  const stopped = new RecordingContext({}, abortSoon(reason))
  await t.rejects(Promise.resolve(primes.handle({ below: 1_000_000_000 }, stopped)), reason)
  t.ok((stopped.fractions.at(-1) ?? 0) < 1, 'not at its end')
})

t.test('sleep: sleeps at least as long as told, with progress', async t => {
  const context = new RecordingContext()
  const value = (await sleep.handle({ ms: 600 }, context)) as { sleptMs: number }
  t.ok(value.sleptMs >= 600, `says ${value.sleptMs} ms`)
  t.equal(context.faultOfProgress(), undefined)
  t.ok(context.fractions.length >= 3, 'progress on the way')

  const none = new RecordingContext()
  t.match(await sleep.handle({ ms: 0 }, none), { sleptMs: Number })
  t.same(none.fractions, [1])
})

t.test('sleep: wakes up at a cancel, with its reason', async t => {
  const reason = new Error('wake up')
  await t.rejects(
    Promise.resolve(sleep.handle({ ms: 86_400_000 }, new RecordingContext({}, abortSoon(reason)))),
    reason,
  )
  for (const ms of [0, 10]) {
    await t.rejects(Promise.resolve(sleep.handle({ ms }, new RecordingContext({}, AbortSignal.abort(reason)))), reason)
  }
})

t.test('countToThree: logs each number with its progress, and can be cancelled between two', async t => {
  const context = new RecordingContext()
  t.equal(await countToThree.handle(null, context), 3)
  t.same(context.lines, ['one', 'two', 'three'])
  t.same(context.fractions, [1 / 3, 2 / 3, 1])

  const reason = new Error('hush')
  const stopped = new RecordingContext({}, abortSoon(reason))
  await t.rejects(Promise.resolve(countToThree.handle(null, stopped)), reason)
  t.same(stopped.lines, ['one'])
})

t.test('noop: null for anything', async t => {
  for (const payload of [null, { any: ['thing'] }, Buffer.from('bytes')])
    t.equal(await noop.handle(payload, new RecordingContext()), null)
})
