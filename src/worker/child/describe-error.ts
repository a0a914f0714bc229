/**
 * Says what a handler threw. It may have thrown anything: fields of other kinds than they should be, getters and
 * proxies that throw themselves. Never throws.
 */
import { inspect, types } from 'node:util'
import type { SlotError } from '../protocol/slot-protocol.ts'

const maxMessageChars = 16_384
const maxStackChars = 16_384
const maxNameChars = 256
const maxCauseChars = 4096
const mostCauses = 5

/**
 * Where the frames lie that tell a handler's author nothing, as a stack names it: with source maps that is another
 * folder.
 */
const ownFolder =
  /((?:file:\/\/)?\/[^()]*\/)[^/]+\/[^/]+:\d+:\d+\)?$/.exec(new Error('here').stack?.split('\n')[1] ?? '')?.[1] ??
  new URL('..', import.meta.url).href

export function describeError(error: unknown): SlotError {
  try {
    return described(error)
  } catch {
    return { message: 'Thrown: something that throws when it is looked at' }
  }
}

function described(error: unknown): SlotError {
  if (!isError(error)) return { message: `Thrown: ${inspectBriefly(error)}`.slice(0, maxMessageChars) }
  const name = nameOf(error)
  const stack = read(error, 'stack')
  const cause = describeCauses(error)
  return {
    message: messageOf(error).slice(0, maxMessageChars),
    ...(name === undefined ? {} : { name: name.slice(0, maxNameChars) }),
    ...(typeof stack === 'string' ? { stack: foreignFrames(stack).slice(0, maxStackChars) } : {}),
    ...(cause === '' ? {} : { cause: cause.slice(0, maxCauseChars) }),
    // By name: the handlers' file may have loaded a copy of the class.
    ...(read(error, 'name') === 'FinalError' ? { final: true as const } : {}),
  }
}

function isError(value: unknown): value is object {
  try {
    return types.isNativeError(value) || value instanceof Error
  } catch {
    return false
  }
}

function read(object: object, key: string): unknown {
  try {
    return (object as Record<string, unknown>)[key]
  } catch {
    return undefined
  }
}

function messageOf(error: object): string {
  const message = read(error, 'message')
  if (typeof message === 'string' && message !== '') return message
  if (message === undefined || message === null || message === '') return nameOf(error) ?? 'Error'
  return inspectBriefly(message)
}

/** A class that did not set its name has it all the same. */
function nameOf(error: object): string | undefined {
  const name = read(error, 'name')
  if (typeof name === 'string' && name !== '' && name !== 'Error') return name
  const made = read(error, 'constructor')
  const madeBy = typeof made === 'function' ? read(made, 'name') : undefined
  if (typeof madeBy === 'string' && madeBy !== '') return madeBy
  return typeof name === 'string' && name !== '' ? name : undefined
}

/** What an error came from, step by step; of one that stands for several, these. */
function describeCauses(error: object): string {
  const told: string[] = []
  let cause = read(error, 'cause')
  while (cause !== undefined && cause !== null && told.length < mostCauses) {
    told.push(headline(cause))
    cause = isError(cause) ? read(cause, 'cause') : undefined
  }
  const several = read(error, 'errors')
  if (told.length === 0 && types.isNativeError(error) && Array.isArray(several)) return headlines(several).join('; ')
  return told.join(' ← ')
}

/** By its places: the methods of a thrown array may be anything. */
function headlines(several: readonly unknown[]): string[] {
  const told: string[] = []
  try {
    for (let at = 0; at < Math.min(several.length, mostCauses); at++) told.push(headline(several[at]))
  } catch {
    // What was told so far.
  }
  return told
}

const headline = (value: unknown): string =>
  isError(value) ? `${nameOf(value) ?? 'Error'}: ${messageOf(value)}` : inspectBriefly(value)

/** Without the frames of Muster and of Node's inside, unless there are no others. */
function foreignFrames(stack: string): string {
  const lines = stack.split('\n')
  const isFrame = (line: string): boolean => /^\s+at /.test(line)
  const isOurs = (line: string): boolean => line.includes(ownFolder) || line.includes('node:internal/')
  const kept = lines.filter(line => !isFrame(line) || !isOurs(line))
  return kept.some(isFrame) ? kept.join('\n') : stack
}

export function inspectBriefly(value: unknown): string {
  if (typeof value === 'string') return value
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return inspectSafely(value)
  }
}

function inspectSafely(value: unknown): string {
  try {
    return inspect(value, { depth: 1, customInspect: false, breakLength: Number.POSITIVE_INFINITY })
  } catch {
    return `something of type ${typeof value} that cannot be shown`
  }
}
