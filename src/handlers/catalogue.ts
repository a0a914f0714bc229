/** All handlers that there are: the built-in ones, listed once, and those of a user's file. */
import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { StartupError } from '../errors.ts'
import { syntaxPlace } from './bundle-handlers.ts'
import { type Handler, handlerTypePattern } from './define-handler.ts'
import { countToThree } from './demo/count-to-three.ts'
import { noop } from './demo/noop.ts'
import { primes } from './demo/primes.ts'
import { sleep } from './demo/sleep.ts'
import { resolveMuster } from './muster-module.ts'
import { sha512 } from './sha512/sha512.ts'

export const builtInHandlers: readonly Handler[] = [sha512, sleep, primes, countToThree, noop]

/** A module may wait for something at its top level; it must come to an end. */
const importTimeoutMs = 30_000

/**
 * The handlers by their type: the built-in ones and those that a file adds.
 * @param file a JavaScript module that exports handlers: by name, as default, or several as a default array
 * @throws StartupError that names the file and says what to do, when it cannot be loaded, holds no handler, or one that
 * is
 *   malformed or whose type is taken
 */
export async function loadHandlers(file?: string): Promise<Map<string, Handler>> {
  const handlers = new Map(builtInHandlers.map(handler => [handler.type, handler]))
  if (file === undefined || file === '') return handlers
  const path = resolve(file)
  for (const [name, value] of exportedHandlers(await importModule(path), path)) {
    const handler = await checkHandler(name, value, path)
    const taken = handlers.get(handler.type)
    if (taken !== undefined) {
      const where = builtInHandlers.includes(taken) ? 'is built in' : 'is defined twice'
      throw new StartupError(`${path}: ${name} has the type "${handler.type}", which ${where}. Give it another type.`)
    }
    handlers.set(handler.type, handler)
  }
  return handlers
}

async function importModule(path: string): Promise<object> {
  const isFile = await stat(path).then(
    found => found.isFile(),
    () => false,
  )
  if (!isFile)
    throw new StartupError(`${path}: there is no such file. Name the JavaScript file that exports your handlers.`)
  resolveMuster()
  const { promise: timeout, cancel } = rejectAfter(importTimeoutMs)
  try {
    return await Promise.race([import(pathToFileURL(path).href), timeout])
  } catch (error) {
    const place = error instanceof SyntaxError ? await syntaxPlace(path) : placeOf(error)
    const message = place + (error instanceof Error ? `${error.name}: ${error.message}` : String(error))
    throw new StartupError(
      `${path}: cannot be loaded (${message}). It must be a JavaScript module whose imports are installed.`,
      {
        cause: error,
      },
    )
  } finally {
    cancel()
  }
}

/** Where in the user's files it happened, as far as the stack says; to stand before the message. */
function placeOf(error: unknown): string {
  const stack = error instanceof Error ? (error.stack ?? '') : ''
  const frame = /^\s+at (?:.*\()?(?:file:\/\/)?(\/[^()]*:\d+:\d+)\)?$/m.exec(stack)
  return frame === null ? '' : `${frame[1]}: `
}

function rejectAfter(ms: number): { promise: Promise<never>; cancel: () => void } {
  let timer: NodeJS.Timeout | undefined
  const promise = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`it has not finished loading after ${ms / 1000} s`)), ms)
  })
  return { promise, cancel: () => clearTimeout(timer) }
}

/** What a module exports and is meant to be a handler, each once, under the name to report it by. */
function exportedHandlers(module: object, path: string): [name: string, value: object][] {
  const found = new Map<object, string>()
  const add = (name: string, value: object) => found.has(value) || found.set(value, name)
  for (const [name, value] of Object.entries(module)) {
    if (Array.isArray(value) && name === 'default') {
      for (const [index, item] of value.entries()) {
        if (!isObject(item)) throw malformed(path, `default[${index}]`, 'is not a handler')
        add(`default[${index}]`, item)
      }
    } else if (isObject(value) && looksLikeHandler(value)) {
      add(`the export "${name}"`, value)
    } else if (isObject(value) && isCommonJs(name)) {
      for (const [key, item] of Object.entries(value))
        if (isObject(item) && looksLikeHandler(item)) add(`the export "${key}"`, item)
    }
  }
  if (found.size === 0) {
    throw new StartupError(
      `${path}: exports no handler. Write "export const name = defineHandler({ type, handle })" in it.`,
    )
  }
  return [...found].map(([value, name]) => [name, value])
}

/** The names under which Node shows `module.exports` of a CommonJS file. */
const isCommonJs = (name: string): boolean => name === 'default' || name === 'module.exports'

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null

/** A `type` alone is no sign: JSON schemas have one too. */
const looksLikeHandler = (value: object): boolean => 'handle' in value || ('type' in value && 'payload' in value)

async function checkHandler(name: string, value: object, path: string): Promise<Handler> {
  const { type, handle, payload, isolation } = value as Partial<Record<keyof Handler, unknown>>
  if (typeof type !== 'string' || !handlerTypePattern.test(type)) {
    throw malformed(
      path,
      name,
      'needs a type that starts with a letter and holds only letters, digits, ".", "_" and "-"',
    )
  }
  if (typeof handle !== 'function')
    throw malformed(path, name, `("${type}") needs a function "handle(payload, context)"`)
  if (isolation !== undefined && isolation !== 'process')
    throw malformed(path, name, `("${type}") takes "process" as its isolation, or none`)
  if (payload === undefined) return value as Handler
  if (!isObject(payload)) throw malformed(path, name, `("${type}") needs a JSON schema as its payload, or none`)
  // Loaded only now: a slot that runs built-in types starts without the validator.
  const { compilePayloadCheck } = await import('./payload-schema.ts')
  try {
    compilePayloadCheck({ type, payload })
  } catch (error) {
    throw malformed(path, name, `cannot be used: ${error instanceof Error ? error.message : String(error)}`, error)
  }
  return value as Handler
}

const malformed = (path: string, name: string, fault: string, cause?: unknown): StartupError =>
  new StartupError(
    `${path}: ${name} ${fault}. Make it with defineHandler({ type, payload?, handle }).`,
    cause === undefined ? undefined : { cause },
  )
