/** Counts and hashes bytes on their way into a store, and stops at the limit. */
import { createHash } from 'node:crypto'
import { PayloadTooLargeError, type StoredPayload } from './payload-store.ts'

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
