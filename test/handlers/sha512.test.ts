/** The type `sha512`: its values are those of Python's hashlib and node:crypto; it yields, tells progress and can be cancelled. */
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { FinalError } from '../../src/handlers/define-handler.ts'
import { DigestChain } from '../../src/handlers/sha512/digest-chain.ts'
import { maxIterations, sha512 } from '../../src/handlers/sha512/sha512.ts'
import { patienceMs } from '../support/until.ts'
import { RecordingContext } from './recording-context.ts'

const run = promisify(execFile)

const compute = async (data: unknown, iterations: number): Promise<unknown> =>
  sha512.handle(data, new RecordingContext({ iterations }))

const pattern = (length: number): Buffer => Buffer.from(Array.from({ length }, (_, index) => index % 251))

/** From Python: length of the data (byte i is i % 251) → iterations → hexdigest. */
const vectors: Record<string, Record<string, string>> = JSON.parse(
  readFileSync(new URL('./sha512-vectors.json', import.meta.url), 'utf8'),
)

const chainOfNode = (data: Uint8Array, iterations: number): string => {
  let digest: Uint8Array = data
  for (let done = 0; done < iterations; done += 1) digest = createHash('sha512').update(digest).digest()
  return Buffer.from(digest).toString('hex')
}

t.test('gives the digests that Python gave, around every edge of block and padding', async t => {
  t.equal(Object.keys(vectors).length, 15)
  for (const [length, digests] of Object.entries(vectors)) {
    for (const [iterations, digest] of Object.entries(digests)) {
      t.equal(
        await compute(pattern(Number(length)), Number(iterations)),
        digest,
        `${length} bytes, ${iterations} iterations`,
      )
    }
  }
})

t.test('null and absent count as empty bytes', async t => {
  for (const nothing of [null, undefined, Buffer.alloc(0)]) t.equal(await compute(nothing, 3), vectors['0']?.['3'])
})

const hasPython = await run('python3', ['-c', 'import hashlib'], { timeout: patienceMs }).then(
  () => true,
  () => false,
)

t.test('equals Python run now, on random data', { skip: hasPython ? false : 'python3 is not installed' }, async t => {
  const cases = [0, 1, 63, 64, 111, 112, 128, 5000].map((length, index) => ({
    data: randomBytes(length),
    iterations: 1 + index * 700,
  }))
  const script = `import hashlib, json, sys
for data, iterations in json.loads(sys.argv[1]):
    digest = bytes.fromhex(data)
    for _ in range(iterations): digest = hashlib.sha512(digest).digest()
    print(digest.hex())`
  const { stdout } = await run(
    'python3',
    ['-c', script, JSON.stringify(cases.map(({ data, iterations }) => [data.toString('hex'), iterations]))],
    {
      timeout: patienceMs,
    },
  )
  const values = await Promise.all(cases.map(({ data, iterations }) => compute(data, iterations)))
  t.same(values, stdout.trim().split('\n'))
})

t.test('equals a chain of node:crypto for any bytes and any count', async t => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 1, max: 60 }), async (data, iterations) => {
      return (await compute(data, iterations)) === chainOfNode(data, iterations)
    }),
    { numRuns: 300 },
  )
  t.pass('300 cases')
})

t.test('a chain may be cut anywhere, and take turns with another', async t => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 40 })), { maxLength: 12 }), turns => {
      const left = new DigestChain(Buffer.from('left'))
      const right = new DigestChain(Buffer.from('right'))
      const counts = { left: 1, right: 1 }
      for (const [isLeft, count] of turns) {
        counts[isLeft ? 'left' : 'right'] += count
        const chain = isLeft ? left : right
        chain.advance(count)
      }
      return (
        left.toHex() === chainOfNode(Buffer.from('left'), counts.left) &&
        right.toHex() === chainOfNode(Buffer.from('right'), counts.right)
      )
    }),
  )
  t.pass('100 cases')
})

t.test('two jobs in one process do not disturb each other', async t => {
  const iterations = 150_000
  const [one, other] = await Promise.all([compute(Buffer.from('a'), iterations), compute(Buffer.from('b'), iterations)])
  t.equal(one, chainOfNode(Buffer.from('a'), iterations))
  t.equal(other, chainOfNode(Buffer.from('b'), iterations))
})

t.test('tells rising progress that ends at 1', async t => {
  const context = new RecordingContext({ iterations: 500_000 })
  await sha512.handle(Buffer.from('x'), context)
  t.equal(context.faultOfProgress(), undefined)
  t.ok(context.fractions.length > 3, `${context.fractions.length} reports`)
  const short = new RecordingContext({ iterations: 1 })
  await sha512.handle(Buffer.from('x'), short)
  t.same(short.fractions, [1])
})

t.test('lets the event loop turn, and ends with the next slice after a cancel, with its reason', async t => {
  const controller = new AbortController()
  const reason = new Error('cancelled by its owner')
  const context = new RecordingContext({ iterations: maxIterations }, controller.signal)
  let reportsAtAbort = Number.NaN
  // A timer in the same thread: it fires only because the computation yields.
  const timer = setInterval(() => {
    if (controller.signal.aborted || context.fractions.length < 5) return
    reportsAtAbort = context.fractions.length
    controller.abort(reason)
  }, 1)
  t.teardown(() => clearInterval(timer))
  await t.rejects(Promise.resolve(sha512.handle(Buffer.from('x'), context)), reason)
  t.ok(context.fractions.length <= reportsAtAbort + 1, `${context.fractions.length - reportsAtAbort} slices more`)
})

t.test('a slice takes the 15 ms of the clock, looked at every 1000 iterations', async t => {
  const { now } = performance
  t.teardown(() => {
    performance.now = now
  })
  let timeMs = 0
  performance.now = () => timeMs++
  const context = new RecordingContext({ iterations: 100_001 })
  await sha512.handle(Buffer.from('x'), context)
  t.equal(context.fractions[0], 15_001 / 100_001)
  t.equal(context.fractions.length, 7, 'one for each 15,000, and the end')
})

t.test('starts nothing when it is cancelled already', async t => {
  const reason = new Error('too late')
  const context = new RecordingContext({ iterations: 1 }, AbortSignal.abort(reason))
  await t.rejects(Promise.resolve(sha512.handle(Buffer.from('x'), context)), reason)
  t.same(context.fractions, [])
})

t.test('what can never work is final', async t => {
  for (const iterations of [0, -1, 1.5, maxIterations + 1, Number.NaN, '3', null]) {
    await t.rejects(
      Promise.resolve(sha512.handle(null, new RecordingContext({ iterations }))),
      FinalError,
      `iterations ${iterations}`,
    )
  }
  await t.rejects(Promise.resolve(sha512.handle(null, new RecordingContext())), FinalError)
  for (const payload of ['text', { data: 'YQ==' }, 7]) await t.rejects(compute(payload, 1), FinalError)
})

t.test('the committed kernel is what its source compiles to', async t => {
  const script = fileURLToPath(new URL('../../scripts/build-kernel.mjs', import.meta.url))
  const outcome = await run(process.execPath, [script, '--check'], { timeout: patienceMs }).then(
    () => 'up to date',
    error => String(error.stderr),
  )
  t.equal(outcome, 'up to date')
})
