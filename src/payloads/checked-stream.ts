/**
 * Passes bytes on and holds them against what was stored. The last chunk is held back until all is known to be right,
 * so that a reader never has every byte of a payload that is wrong.
 */
import { createHash } from 'node:crypto'
import { Transform, type TransformCallback } from 'node:stream'
import { PayloadTooLargeError, type StoredPayload } from './payload-store.ts'

export class PayloadDamagedError extends Error {
  constructor(expected: StoredPayload, found: StoredPayload) {
    super(
      expected.bytes === found.bytes
        ? `The payload is damaged: its SHA-256 is ${found.sha256} instead of ${expected.sha256}`
        : `The payload is damaged: it has ${found.bytes} bytes or more instead of ${expected.bytes}`,
    )
    this.name = 'PayloadDamagedError'
  }
}

/** A pass-through that fails with PayloadDamagedError instead of ending when the bytes are not those `expected`. */
export function checkedStream(expected: StoredPayload): Transform {
  const hash = createHash('sha256')
  let bytes = 0
  let heldBack: Buffer | undefined
  return new Transform({
    transform(chunk: Buffer, _encoding, done: TransformCallback) {
      bytes += chunk.byteLength
      hash.update(chunk)
      if (bytes > expected.bytes) return done(new PayloadDamagedError(expected, { bytes, sha256: '' }))
      const ready = heldBack
      heldBack = chunk
      done(null, ready)
    },
    flush(done) {
      const found = { bytes, sha256: hash.digest('hex') }
      if (found.bytes !== expected.bytes || found.sha256 !== expected.sha256)
        return done(new PayloadDamagedError(expected, found))
      done(null, heldBack)
    },
  })
}

/** Counts and hashes bytes on their way into a store, and stops at the limit. */
export class Meter {
  readonly #hash = createHash('sha256')
  #bytes = 0

  /**
   * Passes the chunks on.
   * @throws PayloadTooLargeError with the chunk that goes over `maxBytes`, which is not passed on
   */
  async *through(content: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Uint8Array> {
    for await (const chunk of content) {
      this.#bytes += chunk.byteLength
      if (this.#bytes > maxBytes) throw new PayloadTooLargeError(maxBytes)
      this.#hash.update(chunk)
      yield chunk
    }
  }

  /** What went through; to be called once, at the end. */
  total(): StoredPayload {
    return { bytes: this.#bytes, sha256: this.#hash.digest('hex') }
  }
}
