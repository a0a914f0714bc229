/**
 * Writes down what a handler returned. What JSON would quietly drop or change is refused, with the reason; but members
 * that are undefined are left out, as everywhere.
 */
import { types } from 'node:util'
import { inspectBriefly } from './describe-error.ts'

/** @throws TypeError that says why JSON cannot hold the value */
export function toJson(value: unknown): string {
  if (value === undefined) return 'null'
  let text: string | undefined
  try {
    text = typeof value === 'string' ? JSON.stringify(value) : JSON.stringify(value, refuseLossy)
  } catch (error) {
    throw unwritable(types.isNativeError(error) ? error.message : `thrown: ${inspectBriefly(error)}`, error)
  }
  if (text === undefined) throw unwritable(`it is a ${typeof value}`)
  return text
}

const unwritable = (why: string, cause?: unknown): TypeError =>
  new TypeError(`The handler's value cannot be written as JSON: ${why}`, cause === undefined ? undefined : { cause })

/** As a replacer it sees each value after its toJSON. */
function refuseLossy(this: unknown, key: string, value: unknown): unknown {
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return value
    throw new TypeError(`${placeOf(key)} is ${value}`)
  }
  if (typeof value === 'function' || typeof value === 'symbol')
    throw new TypeError(`${placeOf(key)} is a ${typeof value}`)
  if (value === null && isInvalidDate((this as Record<string, unknown>)[key]))
    throw new TypeError(`${placeOf(key)} is a Date that is no date`)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const kind = lossyKind(value)
  if (kind !== undefined) throw new TypeError(`${placeOf(key)} is a ${kind}`)
  return value
}

const isInvalidDate = (value: unknown): boolean => types.isDate(value) && Number.isNaN(value.getTime())

const placeOf = (key: string): string => (key === '' ? 'it' : `"${key}"`)

function lossyKind(value: object): string | undefined {
  if (types.isMap(value)) return 'Map (use Object.fromEntries)'
  if (types.isSet(value)) return 'Set (use an array)'
  if (types.isWeakMap(value) || types.isWeakSet(value)) return 'WeakMap or WeakSet'
  if (types.isPromise(value)) return 'Promise (await it)'
  if (types.isAnyArrayBuffer(value)) return 'ArrayBuffer (return a Uint8Array as the whole value)'
  if (types.isNativeError(value)) return 'Error (throw it, or return what it says)'
  if (types.isRegExp(value)) return 'RegExp'
  if (types.isGeneratorObject(value)) return 'generator (use an array)'
  if (types.isNumberObject(value) && !Number.isFinite(Number(value))) return 'Number that is not finite'
  if (ArrayBuffer.isView(value)) return 'typed array or view (return a Uint8Array as the whole value)'
  return undefined
}
