/** Kinds of jobs: how one is drawn, and what it must come to. Each new type of job has its line here. */
import type { Ending } from './facts.ts'
import type { Random } from './random.ts'
import { bytesValue, type Expected, hashChain, jsonValue, largeBytes, primesBelow } from './values.ts'

export type Payload = { readonly json: unknown } | { readonly bytes: Buffer } | undefined

export interface Draw {
  readonly type: string
  /** With sha512: selects it instead of the type. */
  readonly iterations?: number
  readonly payload: Payload
  readonly attempts: number
  readonly timeoutMs: number
  readonly ending: Ending
  readonly killsWorkers?: true
  /** Other than one of those that local workers serve. */
  readonly queue?: string
}

export interface Kind {
  readonly name: string
  readonly weight: number
  /** Kinds of the group `mean` do harm on purpose. */
  readonly group: 'plain' | 'failing' | 'mean' | 'foreign'
  draw(random: Random): Draw
}

const inlineBytes = 16_384
const mebibyte = 1 << 20
const patientMs = 60_000
/** JSON bodies may have 1 MiB with all that is around the text. */
const longestText = mebibyte - '{"payload":""}'.length

/** Around every limit that payloads and results have. */
export function drawSize(random: Random): number {
  if (random.chance(0.6)) return random.int(0, 300)
  const edges = [0, 1, inlineBytes - 1, inlineBytes, inlineBytes + 1, (inlineBytes * 3) / 4, 65_535, 65_536, 65_537]
  if (random.chance(0.7)) return random.pick(edges)
  return random.pick([mebibyte - 1, mebibyte, mebibyte + 1, 3 * mebibyte, random.int(2, 200_000)])
}

const succeeds = (value: Expected): Pick<Draw, 'attempts' | 'ending'> => ({
  attempts: 1,
  ending: { value, attempts: 1 },
})
const dies = (attempts: number, ...errors: string[]): Pick<Draw, 'attempts' | 'ending'> => ({
  attempts,
  ending: { errors, attempts },
})
/** A type that takes one object of parameters. */
const withJson = (type: string, json: unknown): Pick<Draw, 'type' | 'payload' | 'timeoutMs'> => ({
  ...{ type, payload: { json }, timeoutMs: patientMs },
})

function drawJson(random: Random, depth = 0): unknown {
  const leaf = [null, true, false, 0, 1, -1, 1.5, 1e21, 'text', '', 'ü€😀', '\u0000\u001f"\\', random.int(0, 1e9)]
  if (depth > 3 || random.chance(0.5)) return random.pick(leaf)
  const items = Array.from({ length: random.int(0, 4) }, () => drawJson(random, depth + 1))
  if (random.chance(0.5)) return items
  return Object.fromEntries(
    items.map((item, index) => [random.pick(['a', 'b', 'key with space', '', 'ü']) + index, item]),
  )
}

const oddThrows = [
  ...[
    'string',
    'empty',
    'undefined',
    'null',
    'number',
    'nan',
    'bigint',
    'symbol',
    'function',
    'object',
    'bare',
    'cyclic',
  ],
  ...['messageObject', 'messageNumber', 'messageNull', 'messageUndefined', 'messageSymbol', 'messageLong'],
  ...['stackNull', 'stackNumber', 'stackArray', 'stackLong', 'nameNumber', 'getter', 'proxy', 'field'],
]

const strangeValues: Readonly<Record<string, Expected>> = {
  undefined: jsonValue(null),
  date: jsonValue('1970-01-01T00:00:00.000Z'),
  json: jsonValue('from toJSON'),
  holes: jsonValue([null, null, 3]),
  dropped: jsonValue({ kept: 1 }),
  surrogate: jsonValue('\ud800 alone'),
  proto: jsonValue(JSON.parse('{"__proto__": {"admin": true}, "constructor": 1}')),
  keys: jsonValue({ '': 0, 'a\u0000b': 1, ü: 2 }),
  emptyBytes: bytesValue(new Uint8Array()),
  view: bytesValue(new Uint8Array([2, 3, 4])),
  deep: jsonValue(nested(200)),
  thenable: jsonValue('then'),
}
const refusedValues = ['bigint', 'symbol', 'function', 'method', 'regExp', 'cyclic', 'throwsJson', 'tooDeep']

function nested(depth: number): unknown {
  let value: unknown[] = []
  for (let level = 1; level < depth; level += 1) value = [value]
  return value
}

export const kinds: readonly Kind[] = [
  {
    ...{ name: 'sha512', weight: 10, group: 'plain' },
    draw(random) {
      const bytes = random.bytes(drawSize(random))
      const iterations = random.chance(0.9) ? random.int(1, 20) : random.int(1000, 20_000)
      return {
        ...{ type: 'sha512', iterations, payload: { bytes }, timeoutMs: patientMs },
        ...succeeds(jsonValue(hashChain(bytes, iterations))),
      }
    },
  },
  {
    ...{ name: 'echo bytes', weight: 8, group: 'plain' },
    draw(random) {
      const bytes = random.bytes(drawSize(random))
      return { type: 'd.echo', payload: { bytes }, timeoutMs: patientMs, ...succeeds(bytesValue(bytes)) }
    },
  },
  {
    ...{ name: 'echo json', weight: 8, group: 'plain' },
    draw(random) {
      const json = random.chance(0.8) ? drawJson(random) : 'x'.repeat(Math.min(drawSize(random), longestText))
      return { ...withJson('d.echo', json), ...succeeds(jsonValue(json)) }
    },
  },
  {
    ...{ name: 'echo nothing', weight: 1, group: 'plain' },
    draw: () => ({ type: 'd.echo', payload: undefined, timeoutMs: patientMs, ...succeeds(jsonValue(null)) }),
  },
  {
    ...{ name: 'noop', weight: 8, group: 'plain' },
    draw: () => ({ type: 'noop', payload: undefined, timeoutMs: patientMs, ...succeeds(jsonValue(null)) }),
  },
  {
    ...{ name: 'countToThree', weight: 2, group: 'plain' },
    draw: () => ({ type: 'countToThree', payload: undefined, timeoutMs: patientMs, ...succeeds(jsonValue(3)) }),
  },
  {
    ...{ name: 'sleep', weight: 4, group: 'plain' },
    draw(random) {
      const ms = random.chance(0.9) ? random.int(0, 300) : random.int(1000, 4000)
      return { ...withJson('sleep', { ms }), ...succeeds({ sleptMs: ms }) }
    },
  },
  {
    ...{ name: 'rest', weight: 4, group: 'plain' },
    draw(random) {
      const value = random.int(0, 1e9)
      return { ...withJson('d.rest', { ms: random.int(1, 800), value }), ...succeeds(jsonValue(value)) }
    },
  },
  {
    ...{ name: 'primes', weight: 3, group: 'plain' },
    draw(random) {
      const below = random.int(2, 30_000)
      return { ...withJson('primes', { below }), ...succeeds(jsonValue(primesBelow(below))) }
    },
  },
  {
    ...{ name: 'large', weight: 3, group: 'plain' },
    draw(random) {
      const text = random.chance(0.3)
      // Each letter of the text has two bytes, and results have a limit as well.
      const bytes = text ? Math.min(drawSize(random), mebibyte) : drawSize(random)
      const start = random.int(0, 1e6)
      const value = text ? jsonValue('ü'.repeat(bytes)) : bytesValue(largeBytes(bytes, start))
      return { ...withJson('d.large', { bytes, start, text }), ...succeeds(value) }
    },
  },
  {
    ...{ name: 'strange', weight: 3, group: 'plain' },
    draw(random) {
      const what = random.pick(Object.keys(strangeValues))
      return { ...withJson('d.strange', { what }), ...succeeds(strangeValues[what] as Expected) }
    },
  },
  {
    ...{ name: 'print', weight: 2, group: 'plain' },
    draw(random) {
      const [lines, width] = [random.int(0, 40), random.pick([0, 10, 1000, 20_000])]
      return { ...withJson('d.print', { lines, width }), ...succeeds(jsonValue(lines)) }
    },
  },
  {
    ...{ name: 'version', weight: 3, group: 'plain' },
    draw: random => ({
      ...withJson('d.version', { ms: random.pick([0, 0, 50, 3000]) }),
      ...succeeds({ version: 'deployed then' }),
    }),
  },
  {
    ...{ name: 'allocate', weight: 1, group: 'plain' },
    draw(random) {
      const mb = random.int(1, 40)
      return { ...withJson('d.allocate', { mb }), ...succeeds(jsonValue(mb)) }
    },
  },
  {
    ...{ name: 'checkpoint', weight: 3, group: 'failing' },
    draw(random) {
      const [steps, bytes] = [random.int(0, 3), random.pick([4, 4, 1000, inlineBytes + 1, 300_000])]
      const value = jsonValue({ step: steps, bytes: steps === 0 ? 0 : bytes })
      return {
        ...withJson('d.checkpoint', { steps, bytes }),
        ...{ attempts: steps + 1, ending: { value, attempts: steps + 1, mayBeFewer: true } },
      }
    },
  },
  {
    ...{ name: 'fail', weight: 4, group: 'failing' },
    draw(random) {
      const [times, attempts] = [random.int(1, 3), random.int(1, 3)]
      const ends =
        attempts > times
          ? { attempts, ending: { value: jsonValue({ attempt: times + 1 }), attempts: times + 1 } }
          : dies(attempts, 'handler_error')
      return { ...withJson('d.fail', { times }), ...ends }
    },
  },
  {
    ...{ name: 'throw', weight: 4, group: 'failing' },
    draw(random) {
      const payload = { what: random.pick(oddThrows), late: random.chance(0.5) }
      return { ...withJson('d.throw', payload), ...dies(random.int(1, 2), 'handler_error') }
    },
  },
  {
    ...{ name: 'throw final', weight: 1, group: 'failing' },
    draw: () => ({
      ...withJson('d.throw', { what: 'final' }),
      ...{ attempts: 5, ending: { errors: ['handler_error'], attempts: 1 } },
    }),
  },
  {
    ...{ name: 'value refused', weight: 2, group: 'failing' },
    draw: random => ({
      ...withJson('d.strange', { what: random.pick(refusedValues) }),
      ...dies(1, 'handler_error', 'result_refused'),
    }),
  },
  {
    ...{ name: 'hang', weight: 1, group: 'mean' },
    draw: random => ({
      ...withJson('d.hang', { deaf: random.chance(0.5) }),
      ...{ timeoutMs: random.int(300, 2000), ...dies(random.int(1, 2), 'timeout') },
    }),
  },
  {
    ...{ name: 'exit', weight: 1, group: 'mean' },
    draw: random => ({
      ...withJson('d.exit', { how: random.pick(['zero', 'seven', 'abort', 'kill']) }),
      ...dies(random.int(1, 2), 'crash'),
    }),
  },
  {
    ...{ name: 'hog', weight: 0.4, group: 'mean' },
    draw: () => ({ ...withJson('d.allocate', { endless: true }), ...dies(1, 'out_of_memory', 'crash') }),
  },
  {
    ...{ name: 'leftover', weight: 1, group: 'mean' },
    draw(random) {
      const what = random.pick(['reject', 'throw', 'print', 'chdir', 'env', 'interval'])
      return { ...withJson('d.leftover', { what, ms: random.int(0, 400) }), ...succeeds(jsonValue(what)) }
    },
  },
  {
    ...{ name: 'poison', weight: 0.1, group: 'mean' },
    draw: () => ({
      ...withJson('d.poison', {}),
      ...{ attempts: 1, ending: { errors: ['workers_lost'], attempts: 0 }, killsWorkers: true as const },
    }),
  },
  {
    ...{ name: 'wordCount', weight: 3, group: 'foreign' },
    draw(random) {
      const words = Array.from({ length: random.int(0, 50) }, () => random.pick(['a', 'be', 'sea', 'dé']))
      const counts: Record<string, number> = {}
      for (const word of words) counts[word] = (counts[word] ?? 0) + 1
      return {
        ...withJson('wordCount', words.join(' ')),
        ...{ queue: 'foreign', ...succeeds(jsonValue(counts)) },
      }
    },
  },
]
