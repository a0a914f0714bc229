/**
 * The type `primes`: counts the primes below a number with a segmented sieve, as a job that keeps a processor busy. It
 * leaves a checkpoint now and then, and goes on from it when it is run again.
 */
import { defineHandler } from '../define-handler.ts'
import { Pacer } from './pause.ts'

/** Odd numbers sieved at once: their flags fit a processor's first cache. */
const segmentOdds = 32_768
const checkpointEveryMs = 2000

/** All odd numbers with an index below `from` are counted. */
interface Counted {
  readonly from: number
  readonly count: number
  readonly largest: number | null
}

export const primes = defineHandler({
  type: 'primes',
  description: 'Counts the primes below a number.',
  payload: {
    type: 'object',
    required: ['below'],
    properties: { below: { type: 'integer', minimum: 2, maximum: 1_000_000_000 } },
    additionalProperties: false,
    examples: [{ below: 1_000_000 }],
  },
  async handle({ below }, context) {
    const pacer = new Pacer(context)
    const before = context.lastCheckpoint
    const start: Counted =
      before === undefined
        ? { from: 0, count: below > 2 ? 1 : 0, largest: below > 2 ? 2 : null }
        : (JSON.parse(before.toString()) as Counted)
    let { count, largest } = start
    let checkpointedMs = performance.now()
    // Only odd numbers are looked at: index i stands for 2i + 1, and indexes run up to the last odd number below the
    // limit.
    const endIndex = Math.floor(below / 2)
    const sieve = new OddSieve(Math.floor(Math.sqrt(below)), start.from)
    for (let { from } = start; from < endIndex; from += segmentOdds) {
      const to = Math.min(from + segmentOdds, endIndex)
      const composite = sieve.next(from, to)
      for (let offset = from === 0 ? 1 : 0; offset < to - from; offset += 1) {
        if (composite[offset] === 1) continue
        count += 1
        largest = 2 * (from + offset) + 1
      }
      if (performance.now() - checkpointedMs > checkpointEveryMs) {
        checkpointedMs = performance.now()
        // Not waited for: without it the next attempt has a little more to do.
        void context.checkpoint(Buffer.from(JSON.stringify({ from: to, count, largest } satisfies Counted)))
      }
      await pacer.step(to / endIndex)
    }
    context.progress(1)
    return { count, largest }
  },
})

/** Crosses out the odd composites, segment by segment; segments must be asked for in order, from index `start` on. */
class OddSieve {
  readonly #primes: readonly number[]
  /** For each prime, the index of its next odd multiple, from its square on. */
  readonly #nextIndexes: number[]
  readonly #composite = new Uint8Array(segmentOdds)

  /** @param maxPrime the largest prime whose multiples matter */
  constructor(maxPrime: number, start: number) {
    this.#primes = oddPrimesUpTo(maxPrime)
    this.#nextIndexes = this.#primes.map(prime => {
      const square = (prime * prime - 1) / 2
      return square + Math.ceil(Math.max(0, start - square) / prime) * prime
    })
  }

  /** Flags for the indexes `from` to before `to`: 1 for a composite. Valid until the next call. */
  next(from: number, to: number): Uint8Array {
    const composite = this.#composite.fill(0)
    for (const [position, prime] of this.#primes.entries()) {
      let index = this.#nextIndexes[position] ?? to
      if (index >= to) continue
      // A step of p in indexes is one of 2p in numbers: the next odd multiple.
      for (; index < to; index += prime) composite[index - from] = 1
      this.#nextIndexes[position] = index
    }
    return composite
  }
}

function oddPrimesUpTo(max: number): number[] {
  const composite = new Uint8Array(max + 1)
  const found: number[] = []
  for (let number = 3; number <= max; number += 2) {
    if (composite[number] === 1) continue
    found.push(number)
    for (let multiple = number * number; multiple <= max; multiple += 2 * number) composite[multiple] = 1
  }
  return found
}
