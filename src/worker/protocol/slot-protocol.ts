/** What an agent and a slot (its child process) say to each other, as headers of frames. */
import type { AbortWhy } from '../../handlers/define-handler.ts'

/** One type that a slot can run, with the JSON schema of its payload where it declares one. */
export interface HandlerDescription {
  readonly type: string
  readonly description?: string
  readonly payload?: object
  /** Absent: its attempts share slots. */
  readonly isolation?: 'process'
}

/** Bytes, or the UTF-8 of JSON, that travel in the body of a frame, or in the `chunk` frames after it. */
export interface Blob {
  readonly kind: 'bytes' | 'json'
  readonly bytes: number
}

/** A job as a slot gets it. `id` names the attempt between the two of them. */
export interface SlotJob {
  readonly id: number
  readonly workId: string
  readonly type: string
  readonly attempt: number
  readonly attempts: number
  readonly params: Record<string, unknown>
  /** The only one that the slot ever runs: it gets a folder of its own for temporary files. */
  readonly isolated?: true
  /** Left out when it came before as `blob` and `chunk` frames. */
  readonly payload?: { readonly json: unknown } | { readonly blob: Blob }
  /** Likewise; or there is none. */
  readonly checkpoint?: { readonly blob: Blob }
}

/** What can be streamed into a slot ahead of its job. */
export type BlobPart = 'payload' | 'checkpoint'

export type ToSlot =
  /** The body: the blobs of these jobs, in their order, of each the payload first. */
  | { readonly k: 'run'; readonly jobs: readonly SlotJob[] }
  /** This part of a job follows in `chunk` frames, ahead of its `run`; `discard` forgets all parts. */
  | { readonly k: 'blob'; readonly id: number; readonly part: BlobPart; readonly blob: Blob }
  | { readonly k: 'chunk' }
  | { readonly k: 'discard' }
  /** Asks for the jobs that have not started: these, or all. */
  | { readonly k: 'recall'; readonly seq: number; readonly ids?: readonly number[] }
  | { readonly k: 'abort'; readonly id: number; readonly why: AbortWhy; readonly message: string }
  /** What became of all checkpoints of a job up to this one; without `error` the newest of them is kept. */
  | { readonly k: 'checkpointed'; readonly id: number; readonly seq: number; readonly error?: string }

export interface SlotError {
  readonly message: string
  readonly stack?: string
  readonly name?: string
  /** What it came from, in a line. */
  readonly cause?: string
  readonly final?: true
  /** handler_error when left out. */
  readonly code?: string
}

export type FromSlot =
  | { readonly k: 'ready'; readonly types: readonly HandlerDescription[] }
  | { readonly k: 'unready'; readonly message: string }
  | { readonly k: 'start'; readonly id: number }
  /** The value is the body. `next`: the job that starts right after. */
  | {
      readonly k: 'done'
      readonly id: number
      readonly ms: number
      readonly kind: Blob['kind']
      readonly next?: number
    }
  | {
      readonly k: 'failed'
      readonly id: number
      readonly ms: number
      readonly error: SlotError
      readonly next?: number
    }
  | { readonly k: 'progress'; readonly id: number; readonly fraction: number; readonly note?: string }
  /** The bytes are the body. */
  | { readonly k: 'checkpoint'; readonly id: number; readonly seq: number }
  | { readonly k: 'log'; readonly id: number; readonly lines: readonly string[]; readonly dropped?: number }
  | { readonly k: 'recalled'; readonly seq: number; readonly ids: readonly number[] }
  /** Something was thrown outside of any handler; the slot ends itself after this. `id`: the job that ran then. */
  | { readonly k: 'fault'; readonly id?: number; readonly ms: number; readonly error: SlotError }

/**
 * Checks what a slot sends. A handler can write anything into the pipe, so every message is checked before it is used.
 */
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
