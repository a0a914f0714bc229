/**
 * Where payloads and results too large for Redis live. One key, one immutable blob; whoever writes keeps the checksum
 * next to the key, and whoever reads holds the bytes against it (checked-stream).
 * Every implementation passes test/contracts/payload-store-contract.ts.
 */
import type { Readable } from 'node:stream'
import { Problem } from '../errors.ts'

export interface StoredPayload {
  readonly bytes: number
  /** Hex. */
  readonly sha256: string
}

export interface PayloadStore {
  /**
   * Keeps `content` under `key`, streamed with backpressure. Atomic and durable: the key is readable with all of its
   * bytes once this resolves, and never with part of them; an earlier blob of the key is replaced.
   * A stream is consumed, and destroyed when this fails. Whatever fails leaves nothing behind.
   * @throws PayloadTooLargeError over `maxBytes`
   * @throws InvalidPayloadKeyError
   */
  put(key: string, content: Readable | Buffer, limits: { readonly maxBytes: number }): Promise<StoredPayload>

  /**
   * The blob, or undefined when there is none. The stream must be read to its end or destroyed; deleting the key
   * meanwhile does not disturb it.
   * @throws InvalidPayloadKeyError
   */
  get(key: string): Promise<{ readonly stream: Readable; readonly bytes: number } | undefined>

  /**
   * Forgets these keys; absent ones are fine.
   * @throws InvalidPayloadKeyError before anything is deleted
   */
  delete(keys: readonly string[]): Promise<void>

  /**
   * The keys that were written `olderThanMs` or longer before `now` (ms since the epoch), in no order. What is written
   * or deleted meanwhile may or may not be among them.
   */
  list(olderThanMs: number, now: number): AsyncIterable<string>
}

export class PayloadTooLargeError extends Problem {
  readonly maxBytes: number

  constructor(maxBytes: number) {
    super('body_too_large', `It is over the limit of ${maxBytes} bytes.`)
    this.name = 'PayloadTooLargeError'
    this.maxBytes = maxBytes
  }
}

/** A mistake of the caller, never of a client: keys are made here. */
export class InvalidPayloadKeyError extends Error {
  constructor(key: string) {
    super(`Not a payload key: ${JSON.stringify(key)}`)
    this.name = 'InvalidPayloadKeyError'
  }
}

const keyPattern = /^[A-Za-z0-9._~-]+(?:\/[A-Za-z0-9._~-]+)*$/
/** A key is one file name in the folder store. */
const maxKeyLength = 240

/**
 * A key is segments of letters, digits and . _ ~ - with slashes between, without "..", at most 240 long.
 * @throws InvalidPayloadKeyError
 */
export function assertPayloadKey(key: string): void {
  if (!keyPattern.test(key) || key.includes('..') || key.length > maxKeyLength) throw new InvalidPayloadKeyError(key)
}
