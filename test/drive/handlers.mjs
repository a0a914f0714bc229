/** Handlers that the drive submits jobs to: what each comes to is computed in kinds.ts. */
import { writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { defineHandler, FinalError } from 'muster'

const spin = () => {
  for (;;);
}

/** Replaced by the moves that deploy: `PUT /handlers` with another number here. */
const deployed = 0
export const version = defineHandler({
  type: 'd.version',
  handle: async ({ ms }) => {
    await delay(ms)
    return deployed
  },
})

export const echo = defineHandler({ type: 'd.echo', handle: payload => payload })

export const rest = defineHandler({
  type: 'd.rest',
  handle: async ({ ms, value }, { signal }) => {
    await delay(ms, undefined, { signal })
    return value
  },
})

/** Fails so many times, then succeeds. */
export const fail = defineHandler({
  type: 'd.fail',
  handle: ({ times }, { attempt }) => {
    if (attempt <= times) throw new Error(`attempt ${attempt} fails`)
    return { attempt }
  },
})

const errorWith = fields => Object.assign(new Error('odd'), fields)
const oddThings = {
  string: () => 'a string',
  empty: () => '',
  undefined: () => undefined,
  null: () => null,
  number: () => 42,
  nan: () => Number.NaN,
  bigint: () => 10n ** 30n,
  symbol: () => Symbol('odd'),
  function: () => spin,
  method: () => [{ call: spin }],
  regExp: () => ({ is: /x/ }),
  object: () => ({ code: 5, message: { deep: true } }),
  bare: () => Object.create(null),
  cyclic: () => {
    const one = {}
    one.self = one
    return one
  },
  messageObject: () => errorWith({ message: { code: 5 } }),
  messageNumber: () => errorWith({ message: 42 }),
  messageNull: () => errorWith({ message: null }),
  messageUndefined: () => errorWith({ message: undefined }),
  messageSymbol: () => errorWith({ message: Symbol('odd') }),
  messageLong: () => errorWith({ message: 'm'.repeat(3_000_000) }),
  stackNull: () => errorWith({ stack: null }),
  stackNumber: () => errorWith({ stack: 7 }),
  stackArray: () => errorWith({ stack: [{ file: 'a' }] }),
  stackLong: () => errorWith({ stack: 's'.repeat(3_000_000) }),
  nameNumber: () => errorWith({ name: 7 }),
  getter: () =>
    Object.defineProperty(new Error('odd'), 'message', {
      get() {
        throw new Error('from the getter')
      },
    }),
  proxy: () =>
    new Proxy(new Error('odd'), {
      get() {
        throw new Error('from the proxy')
      },
    }),
  field: () =>
    new (class ApiError extends Error {
      message
    })(),
}

export const throws = defineHandler({
  type: 'd.throw',
  handle: async ({ what, late }) => {
    if (late) await delay(5)
    if (what === 'final') throw new FinalError('never again')
    throw oddThings[what]()
  },
})

export const print = defineHandler({
  type: 'd.print',
  handle: ({ lines, width }, context) => {
    for (let line = 0; line < lines; line += 1) {
      const text = `${line} ${'x'.repeat(width)}\n`
      if (line % 3 === 0) process.stdout.write(text)
      else if (line % 3 === 1) process.stderr.write(text)
      else context.log(text)
    }
    if (lines % 2 === 0) writeSync(1, 'straight to the descriptor \u0000\u001b[31m\n')
    return lines
  },
})

export const hang = defineHandler({
  type: 'd.hang',
  handle: ({ deaf }) => (deaf ? spin() : new Promise(() => setInterval(() => undefined, 1000))),
})

export const exit = defineHandler({
  type: 'd.exit',
  handle: ({ how }) => {
    if (how === 'abort') process.abort()
    if (how === 'kill') process.kill(process.pid, 'SIGKILL')
    process.exit(how === 'zero' ? 0 : 7)
  },
})

/** Counts its way up through checkpoints: each attempt goes one step further than the one before, and fails. */
export const checkpoint = defineHandler({
  type: 'd.checkpoint',
  handle: async ({ steps, bytes }, context) => {
    const step = context.lastCheckpoint === undefined ? 0 : context.lastCheckpoint.readUInt32LE(0)
    if (step >= steps) return { step, bytes: context.lastCheckpoint?.length ?? 0 }
    const next = Buffer.alloc(Math.max(4, bytes))
    next.writeUInt32LE(step + 1)
    await context.checkpoint(next)
    throw new Error(`step ${step + 1}`)
  },
})

export const large = defineHandler({
  type: 'd.large',
  handle: ({ bytes, start, text }) => {
    if (text) return 'ü'.repeat(bytes)
    const made = Buffer.alloc(bytes)
    for (let at = 0, value = start; at < bytes; at += 1) {
      value = (Math.imul(value, 1103515245) + 12345) & 0x7fffffff
      made[at] = value >> 16
    }
    return made
  },
})

const nested = depth => {
  let value = []
  for (let level = 1; level < depth; level += 1) value = [value]
  return value
}
const strangeThings = {
  undefined: () => undefined,
  date: () => new Date(0),
  json: () => ({ toJSON: () => 'from toJSON' }),
  holes: () => [undefined, null, 3],
  dropped: () => ({ kept: 1, dropped: undefined }),
  surrogate: () => '\ud800 alone',
  proto: () => JSON.parse('{"__proto__": {"admin": true}, "constructor": 1}'),
  keys: () => ({ '': 0, 'a\u0000b': 1, ü: 2 }),
  emptyBytes: () => Buffer.alloc(0),
  view: () => new Uint8Array(new Uint8Array([1, 2, 3, 4, 5]).buffer, 1, 3),
  deep: () => nested(200),
  // biome-ignore lint/suspicious/noThenProperty: that it is one is the point
  thenable: () => ({ then: resolve => resolve('then') }),
  bigint: () => 1n,
  symbol: () => Symbol('value'),
  function: () => spin,
  method: () => [{ call: spin }],
  regExp: () => ({ is: /x/ }),
  cyclic: () => {
    const one = {}
    one.self = one
    return one
  },
  throwsJson: () => ({
    toJSON() {
      throw undefined
    },
  }),
  tooDeep: () => nested(200_000),
}

export const strange = defineHandler({ type: 'd.strange', handle: ({ what }) => strangeThings[what]() })

/** Succeeds, and leaves something behind that goes off while another job runs in its slot. */
export const leftover = defineHandler({
  type: 'd.leftover',
  handle: ({ what, ms }) => {
    if (what === 'reject') setTimeout(() => void Promise.reject(new Error('left over')), ms)
    if (what === 'throw')
      setTimeout(() => {
        throw new Error('left over')
      }, ms)
    if (what === 'print') setTimeout(() => process.stdout.write('left over\n'), ms)
    if (what === 'chdir') process.chdir('/')
    if (what === 'env') process.env.DRIVE_LEFT_OVER = 'yes'
    if (what === 'interval') {
      const timer = setInterval(() => undefined, 10)
      setTimeout(() => clearInterval(timer), 2000)
    }
    return what
  },
})

export const allocate = defineHandler({
  type: 'd.allocate',
  handle: ({ mb, endless }) => {
    const all = []
    if (endless) for (;;) all.push(new Array(100_000).fill(Math.random()))
    for (let block = 0; block < mb; block += 1) all.push(Buffer.alloc(1 << 20, block))
    return all.length
  },
})

/** Kills the worker that it runs under. */
export const poison = defineHandler({
  type: 'd.poison',
  handle: async () => {
    process.kill(process.ppid, 'SIGKILL')
    await delay(60_000)
  },
})
