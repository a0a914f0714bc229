/** Checks what a slot says. A handler can write anything into the pipe: nothing of it is believed before it has this shape. */
import type { FromSlot } from './slot-protocol.ts'

type Fields = Readonly<Record<string, unknown>>
type Check = (value: unknown) => boolean

const isText: Check = value => typeof value === 'string'
const isCount: Check = value => Number.isSafeInteger(value) && (value as number) >= 0
const isDuration: Check = value => Number.isFinite(value) && (value as number) >= 0
const isFraction: Check = value => Number.isFinite(value) && (value as number) >= 0 && (value as number) <= 1
const isProcess: Check = value => value === 'process'
const isTrue: Check = value => value === true
const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isArrayOf =
  (check: Check): Check =>
  value =>
    Array.isArray(value) && value.every(check)
const isShape =
  (required: Record<string, Check>, optional: Record<string, Check> = {}): Check =>
  value =>
    isFields(value) &&
    Object.entries(required).every(([key, check]) => check(value[key])) &&
    Object.entries(optional).every(([key, check]) => value[key] === undefined || check(value[key]))

const isError = isShape(
  { message: isText },
  { stack: isText, name: isText, cause: isText, final: isTrue, code: isText },
)

const checks: Record<FromSlot['k'], Check> = {
  ready: isShape({
    types: isArrayOf(isShape({ type: isText }, { description: isText, payload: isFields, isolation: isProcess })),
  }),
  unready: isShape({ message: isText }),
  start: isShape({ id: isCount }),
  done: isShape({ id: isCount, ms: isDuration, kind: kind => kind === 'bytes' || kind === 'json' }, { next: isCount }),
  failed: isShape({ id: isCount, ms: isDuration, error: isError }, { next: isCount }),
  progress: isShape({ id: isCount, fraction: isFraction }, { note: isText }),
  checkpoint: isShape({ id: isCount, seq: isCount }),
  log: isShape({ id: isCount, lines: isArrayOf(isText) }, { dropped: isCount }),
  recalled: isShape({ seq: isCount, ids: isArrayOf(isCount) }),
  fault: isShape({ ms: isDuration, error: isError }, { id: isCount }),
}

/** @throws Error when it is no message that a slot may send */
export function checkedMessage(header: unknown): FromSlot {
  const kind = isFields(header) ? header.k : undefined
  const check = typeof kind === 'string' && Object.hasOwn(checks, kind) ? checks[kind as FromSlot['k']] : undefined
  if (check === undefined) throw new Error('a frame of an unknown kind')
  if (!check(header)) throw new Error(`a frame "${kind}" without its shape`)
  return header as FromSlot
}
