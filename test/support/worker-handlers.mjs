/** Handlers that behave badly on purpose, for tests of the worker. */
import { spawn } from 'node:child_process'
import { appendFileSync, existsSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { defineHandler, FinalError } from 'muster'
import { oddErrors, throwing } from './odd-errors.mjs'

const spin = () => {
  for (;;);
}

export const echo = defineHandler({ type: 'echo', handle: payload => payload })

export const env = defineHandler({ type: 'env', handle: () => Object.keys(process.env) })

export const boom = defineHandler({
  type: 'boom',
  handle: payload => {
    if (payload === 'final') throw new FinalError('never again')
    throw new Error('boom')
  },
})

export const crash = defineHandler({
  type: 'crash',
  handle: () => {
    console.error('these are my last words')
    process.kill(process.pid, 'SIGSEGV')
    spin()
  },
})

export const leave = defineHandler({ type: 'leave', handle: () => process.exit(7) })

/** Where the payload asks for it, a file says that the job runs: one that is leased may not have started yet. */
const begin = ({ begun }) => {
  if (begun !== undefined) writeFileSync(begun, '')
}

export const loop = defineHandler({
  type: 'loop',
  handle: payload => {
    begin(payload ?? {})
    spin()
  },
})

export const hog = defineHandler({
  type: 'hog',
  handle: () => {
    const all = []
    for (;;) all.push(new Array(10_000).fill(all.length))
  },
})

export const reject = defineHandler({
  type: 'reject',
  handle: async () => {
    void Promise.reject(new Error('nobody listens'))
    await delay(60_000)
  },
})

/** Writes each start into a file; crashes when it is told to. */
export const count = defineHandler({
  type: 'count',
  handle: ({ file, name, crash }) => {
    appendFileSync(file, `${name}\n`)
    if (crash) process.exit(1)
    return name
  },
})

/** Waits until the abort, and says in a file that it heard it. */
export const patient = defineHandler({
  type: 'patient',
  handle: async ({ ms, file, begun }, { signal }) => {
    begin({ begun })
    try {
      await delay(ms, undefined, { signal })
    } catch (error) {
      appendFileSync(file, 'heard the abort\n')
      throw error
    }
    appendFileSync(file, 'rested\n')
    return 'rested'
  },
})

export const busy = defineHandler({
  type: 'busy',
  handle: ms => {
    const until = Date.now() + ms
    while (Date.now() < until);
    return ms
  },
})

/** Goes on to tell its progress until the gate is there, if it has one. */
export const chatty = defineHandler({
  type: 'chatty',
  handle: async ({ lines, pauseMs, gate }, { log, progress }) => {
    for (let line = 0; line < lines; line++) {
      if (line % 2 === 0) log(`line ${line}`)
      else console.log('line %d', line)
      progress(line / lines, `at ${line}`)
      if (pauseMs > 0) await delay(pauseMs)
    }
    for (let more = lines; gate !== undefined && !existsSync(gate); more++) {
      progress(1, `at ${more}`)
      await delay(20)
    }
  },
})

export const odd = defineHandler({
  type: 'odd',
  handle: what => {
    if (what === 'bigint') return { n: 1n }
    if (what === 'cycle') {
      const cycle = {}
      cycle.self = cycle
      return cycle
    }
    if (what === 'function') return () => 1
    return undefined
  },
})

export const large = defineHandler({
  type: 'large',
  handle: ({ bytes, json }) => (json ? 'x'.repeat(bytes) : Buffer.alloc(bytes, 7)),
})

/** Starts a process that would outlive it. */
export const parent = defineHandler({
  type: 'parent',
  handle: async ({ file }) => {
    const child = spawn('sleep', ['600'], { stdio: 'inherit' })
    appendFileSync(file, `${child.pid}\n`)
    spin()
  },
})

/** Tells what it was given; leaves `leave` (text, or a number of bytes), then does as it is told. */
export const relay = defineHandler({
  type: 'relay',
  handle: async ({ leave, end }, context) => {
    const found = context.lastCheckpoint?.toString('latin1').slice(0, 40) ?? null
    const bytes = typeof leave === 'number' ? Buffer.alloc(leave, 'c') : Buffer.from(leave ?? '')
    if (leave !== undefined) await context.checkpoint(bytes)
    if (end === 'throw') throw new Error('not yet')
    return { found, size: context.lastCheckpoint?.length ?? 0 }
  },
})

/** Does not wait for its checkpoints; the last one counts. */
export const hasty = defineHandler({
  type: 'hasty',
  handle: async (count, { checkpoint }) => {
    const bytes = Buffer.alloc(1_000_000)
    for (let seq = 1; seq <= count; seq++) {
      bytes.fill(seq)
      void checkpoint(bytes)
      await delay(0)
    }
    throw new Error('not yet')
  },
})

/** Works until it is aborted; leaves then, by a checkpoint, why. `hasty`: without waiting for it. */
export const parting = defineHandler({
  type: 'parting',
  handle: async ({ how, begun }, { signal, checkpoint }) => {
    begin({ begun })
    try {
      await delay(60_000, undefined, { signal })
    } catch {
      if (how !== 'hasty') await delay(500)
      const kept = checkpoint(Buffer.from(`${signal.reason.name} ${signal.reason.why}`))
      if (how !== 'hasty') await kept
    }
    return 'never counts'
  },
})

/** Writes into a file when it begins and when it ends. */
export const span = defineHandler({
  type: 'span',
  handle: async ({ file, name, ms }) => {
    appendFileSync(file, `+${name}\n`)
    await delay(ms)
    appendFileSync(file, `-${name}\n`)
    return name
  },
})

/** Writes bytes into the pipe to its agent, as a native library or an attacker could; then does as it is told. */
export const babble = defineHandler({
  type: 'babble',
  handle: async ({ base64, after }) => {
    const bytes = Buffer.from(base64, 'base64')
    for (let written = 0; written < bytes.length; ) {
      try {
        written += writeSync(3, bytes, written)
      } catch (error) {
        if (error.code !== 'EAGAIN') throw error
      }
    }
    if (after === 'wait') await delay(60_000)
    return 'own value'
  },
})

/** Throws what is no proper error. */
export const throwOdd = defineHandler({
  type: 'throwOdd',
  handle: ({ how, async }) => {
    const error = oddErrors[how]()
    if (async === 'rejected') return Promise.reject(error)
    if (async === 'unhandled') {
      void Promise.reject(error)
      return delay(60_000)
    }
    throw error
  },
})

/** Returns what JSON would drop or change. */
export const lossy = defineHandler({
  type: 'lossy',
  handle: ({ what, nested }) => {
    const value = lossyValues[what]()
    return nested ? { inside: [value] } : value
  },
})
const lossyValues = {
  Map: () => new Map([[1, 2]]),
  Set: () => new Set([1]),
  WeakMap: () => new WeakMap(),
  Promise: () => (async () => 1)(),
  ArrayBuffer: () => new ArrayBuffer(3),
  view: () => new Float64Array(3),
  NaN: () => Number.NaN,
  Infinity: () => Number.NEGATIVE_INFINITY,
  toJSON: () => ({ toJSON: throwing }),
  Error: () => new Error('not thrown'),
  RegExp: () => /x/,
  Number: () => new Number(Number.NaN),
  Date: () => new Date(Number.NaN),
  generator: () => (function* () {})(),
  function: () => ({ f: () => 1 }),
}

class Inner extends Error {}

export const caused = defineHandler({
  type: 'caused',
  handle: async () => {
    await delay(1)
    throw new TypeError('outer', { cause: new Inner('inner', { cause: new Error('innermost') }) })
  },
})

/** Succeeds, and blocks its slot soon after. */
export const blockLater = defineHandler({
  type: 'blockLater',
  handle: file => {
    setTimeout(() => {
      appendFileSync(file, 'blocked\n')
      spin()
    }, 50)
  },
})

/** Succeeds at once, and leaves something for later. */
export const leaveBehind = defineHandler({
  type: 'leaveBehind',
  handle: ({ what, file }) => {
    if (what === 'rejection at a sign')
      void (async () => {
        while (!existsSync(file)) await delay(5)
        throw new Error('left over')
      })()
    if (what === 'rejection') setTimeout(() => Promise.reject(new Error('left over')), 100)
    if (what === 'exception')
      setTimeout(() => {
        throw new Error('left over')
      }, 100)
    if (what === 'print')
      setTimeout(() => {
        console.log('left over')
        appendFileSync(file, 'printed')
      }, 100)
    if (what === 'environment') {
      process.chdir('/')
      process.env.LEFT_OVER = '1'
      delete process.env.PATH
    }
    if (what === 'child' || what === 'detached') {
      const child = spawn('sleep', ['600'], { stdio: 'ignore', detached: what === 'detached' })
      appendFileSync(file, String(child.pid))
    }
    if (what === 'escaped') {
      const child = spawn('sh', ['-c', `setsid sleep 600 & echo $! > ${file}`], { stdio: 'ignore' })
      return new Promise(resolve => child.once('exit', resolve))
    }
    return 1
  },
})

/** Leaves `bytes` as a checkpoint, gives the sign and waits for its end; started again, tells what it finds. */
export const goesOn = defineHandler({
  type: 'goesOn',
  handle: async ({ bytes, sign }, { lastCheckpoint, checkpoint }) => {
    if (lastCheckpoint?.includes('newer')) return { found: 'newer', size: lastCheckpoint.length }
    if (existsSync(sign)) return { found: lastCheckpoint?.toString('latin1', 0, 5) ?? 'nothing' }
    await checkpoint(Buffer.alloc(bytes, 'older'))
    await checkpoint(Buffer.alloc(bytes, 'newer'))
    writeFileSync(sign, '')
    await delay(60_000)
  },
})

/** Writes a file when it starts, and ends when there is another. */
export const runsUntil = defineHandler({
  type: 'runsUntil',
  handle: async file => {
    writeFileSync(file, '')
    while (!existsSync(`${file} may end`)) await delay(5)
    return 'ended'
  },
})

export const surroundings = defineHandler({
  type: 'surroundings',
  handle: async () => {
    await delay(600)
    return { folder: process.cwd(), leftOver: process.env.LEFT_OVER ?? null, path: process.env.PATH !== undefined }
  },
})

/** Tells what it finds, and leaves traces of every kind; `end`: how it ends. */
const leaveTraces = async payload => {
  const { end, gate } = payload ?? {}
  const found = { pid: process.pid, global: globalThis.trace ?? null, folder: tmpdir(), number: Number.toString.trace }
  globalThis.trace = 'left'
  Number.toString.trace = 'left'
  setInterval(() => undefined, 1000)
  writeFileSync(join(found.folder, `trace-${process.pid}`), 'left')
  const child = spawn('sh', ['-c', 'setsid sleep 600 & echo $!'], { stdio: ['ignore', 'pipe', 'ignore'] })
  found.child = await new Promise(resolve => child.stdout.once('data', line => resolve(Number(line))))
  while (gate !== undefined && !existsSync(gate)) await delay(20)
  if (end === 'crash') process.kill(process.pid, 'SIGSEGV')
  if (end === 'crash') await delay(60_000)
  return found
}

export const traces = defineHandler({ type: 'traces', handle: leaveTraces })
export const isolated = defineHandler({ type: 'isolated', isolation: 'process', handle: leaveTraces })

/** Takes memory beside the heap of V8, in itself or in a child process, and keeps it. */
export const buffers = defineHandler({
  type: 'buffers',
  handle: async ({ mb, inChild }) => {
    if (inChild) spawn(process.execPath, ['-e', `const all = Buffer.alloc(${mb}e6, 1); setInterval(() => all, 1000)`])
    else globalThis.kept = Buffer.alloc(mb * 1e6, 1)
    await delay(120_000)
  },
})

export const oomScore = defineHandler({
  type: 'oomScore',
  handle: () => Number(readFileSync('/proc/self/oom_score_adj', 'utf8')),
})

/** Fills its log with what takes most room as JSON, and returns bytes. */
export const loud = defineHandler({
  type: 'loud',
  handle: async (bytes, { log }) => {
    for (let line = 0; line < 1000; line++) log('\u0001'.repeat(8000))
    return Buffer.alloc(bytes, 7)
  },
})

/** Runs until a file is there; `blocks`: hears nothing meanwhile. */
export const gated = defineHandler({
  type: 'gated',
  handle: async ({ gate, blocks }) => {
    while (!existsSync(gate)) if (!blocks) await delay(20)
    return 'through'
  },
})
