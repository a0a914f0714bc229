/** How a job's payload and its value stand in Redis: as BullMQ's `data` and `returnvalue`, both JSON. */

import { randomUUID } from 'node:crypto'
import { nanoid } from 'nanoid'

/** Inline content, or a reference to a blob in the payload store. Exactly one of the four. */
export interface StoredContent {
  readonly json?: unknown
  /** JSON with numbers that a double cannot hold, as it was sent (job-data.ts). */
  readonly text?: string
  readonly base64?: string
  readonly blob?: BlobRef
}

export interface BlobRef {
  readonly key: string
  readonly kind: 'bytes' | 'json'
  readonly bytes: number
  /** Lowercase hex. */
  readonly sha256: string
}

/** The JSON of inline content, to be printed into a reply. */
export const jsonOf = ({ json, text }: StoredContent): unknown =>
  text === undefined ? (json ?? null) : new RawJson(text)

export interface JobData {
  readonly payload: StoredContent
  /** `{ iterations }` for sha512; absent when there are none. */
  readonly params?: Readonly<Record<string, unknown>>
  /** Run-time limit of one attempt; absent: the setting. */
  readonly timeoutMs?: number
  /** The id of the API key that put it in. */
  readonly owner?: string
  /** With an Idempotency-Key: tells a repeated request from another one under the same key. */
  readonly fingerprint?: string
}

/**
 * Every request has a place of its own: a repeated Idempotency-Key must not overwrite what the first request stored.
 */
export const payloadKey = (workId: string): string => `${workId}/payload-${nanoid()}`

/** An attempt has a place of its own, so that a stale worker cannot overwrite the value of the one that counts. */
export const resultKey = (workId: string, token: string): string =>
  `${workId}/result-${token.replace(/[^A-Za-z0-9_-]/g, '-')}`

/** Every upload has a place of its own: the one before must stay whole until the new one is recorded. */
export const checkpointKey = (workId: string): string => `${workId}/checkpoint-${nanoid()}`

/**
 * JSON that is passed on as it was sent. A JavaScript number is a double: 1970670598291982290, 1e400 and -0 do not
 * survive parsing and printing. A text with such numbers is therefore kept as text, and put into replies as it is.
 */

/** Of this process: no text from outside can contain it. */
const mark = `raw-json:${randomUUID()}:`
const marked = new RegExp(`"${mark}((?:[^"\\\\]|\\\\.)*)"`, 'g')

/** Stands for its text wherever a value is printed; `unwrapRawJson` then puts the text in its place. */
export class RawJson {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  toJSON(): string {
    return mark + this.#text
  }
}

/** @param json what was printed of a value with a RawJson in it, or without */
export const unwrapRawJson = (json: string): string =>
  json.includes(mark) ? json.replace(marked, (_, escaped: string) => JSON.parse(`"${escaped}"`) as string) : json
