/** What a handler is: the code that does one type of job. Users write theirs with the same function. */
import type { Static, TSchema } from 'typebox'

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue }

/** What a handler may know and do while it runs one attempt. */
export interface HandlerContext {
  readonly workId: string
  readonly type: string
  /** Which attempt this is, from 1. */
  readonly attempt: number
  /** How many attempts there may be. */
  readonly attempts: number
  /** What was submitted beside the payload: `{ iterations }` for sha512, else empty. */
  readonly params: Readonly<Record<string, JsonValue>>
  /**
   * Aborts when the job is cancelled, its time is up or the worker must go; its `reason` is an AttemptAborted. The slot
   * is killed 3 s later: time enough for a last checkpoint.
   */
  readonly signal: AbortSignal
  /**
   * What an earlier attempt, or an earlier start of this one, left by `checkpoint`; undefined when there is nothing.
   */
  readonly lastCheckpoint: Buffer | undefined
  /**
   * Leaves bytes for the next attempt, whoever runs it, in place of those before. They are kept over failures and
   * returns, and dropped when the job has succeeded. Of several at once the newest counts.
   * @returns when a node has kept these bytes or newer ones
   * @throws Error (rejects) when nobody will keep them: the lease is gone, they are too large, or the attempt is over
   */
  checkpoint(bytes: Uint8Array): Promise<void>
  /** How far the job is, from 0 to 1, and a word about it. Cheap: the latest value is sent now and then. */
  progress(fraction: number, note?: string): void
  /** Adds a line to the log of the job. */
  log(line: string): void
}

/**
 * Why an attempt is ended from outside. `timeout`: its time is up, the attempt has failed. `stopped`: the job was
 * cancelled or its lease is lost, nothing of it counts any more. `worker-leaves`: the worker must go (a drain);
 * `interruption`: so must its instance. The job then goes on elsewhere, from its last checkpoint; no attempt is spent.
 */
export type AbortWhy = 'timeout' | 'stopped' | 'worker-leaves' | 'interruption'

/** The reason of an aborted signal. */
export class AttemptAborted extends Error {
  override readonly name = 'AbortError'
  readonly why: AbortWhy

  constructor(why: AbortWhy, message: string) {
    super(message)
    this.why = why
  }
}

export interface Handler<Payload = unknown> {
  readonly type: string
  /** What it does, in a sentence, for `GET /types`. Examples of payloads stand in the schema, as `examples`. */
  readonly description?: string
  /**
   * JSON schema (TypeBox makes one, with its type) that a JSON payload must satisfy; checked when the job is submitted.
   */
  readonly payload?: TSchema
  /**
   * `process`: each attempt runs in a process of its own, which has run nothing before and ends with it. Left out: a
   * slot runs one job after the other.
   */
  readonly isolation?: 'process'
  /**
   * Does the work.
   * @param payload the submitted bytes as a Buffer, the submitted JSON value, or null when none was given
   * @returns the value: anything that JSON can hold, or a Uint8Array for bytes; undefined becomes null
   * @throws whatever went wrong; the attempt has failed, and is tried again unless it throws a FinalError
   */
  handle(payload: Payload, context: HandlerContext): unknown
}

/** Thrown by a handler when trying again cannot help: the job is dead at once. */
export class FinalError extends Error {
  override readonly name = 'FinalError'
}

/** Names of types: as in URLs and metrics. */
export const handlerTypePattern = /^[A-Za-z][A-Za-z0-9_.-]{0,127}$/

export function defineHandler<const Schema extends TSchema>(definition: {
  type: string
  description?: string
  isolation?: 'process'
  payload: Schema
  handle: (payload: Static<Schema>, context: HandlerContext) => unknown
}): Handler<Static<Schema>>
export function defineHandler<Payload = unknown>(definition: {
  type: string
  description?: string
  isolation?: 'process'
  handle: (payload: Payload, context: HandlerContext) => unknown
}): Handler<Payload>
/**
 * Declares a handler.
 * @throws TypeError when the type is missing or has a bad name, or there is no handle function
 */
export function defineHandler(definition: Handler<never>): Handler<never> {
  const { type, handle } = definition
  const fault =
    type === undefined
      ? `A handler needs a "type", the name of the jobs that it does; this one has: ${keysOf(definition)}`
      : typeof type !== 'string' || !handlerTypePattern.test(type)
        ? `A handler's type must start with a letter and hold only letters, digits, ".", "_" and "-", not "${String(type)}"`
        : typeof handle !== 'function'
          ? `The handler "${type}" needs a function "handle(payload, context)"; it has: ${keysOf(definition)}`
          : undefined
  if (fault === undefined) return definition
  const error = new TypeError(fault)
  // The place to mend is in the user's file.
  Error.captureStackTrace(error, defineHandler)
  throw error
}

const keysOf = (definition: object): string => Object.keys(definition).join(', ') || 'nothing'
