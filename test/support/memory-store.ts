/** Payloads in memory: for tests that need a store and nothing of its files. Passes the same contract. */
import { Readable } from 'node:stream'
import { Meter } from '../../src/payloads/checked-stream.ts'
import { assertPayloadKey, type PayloadStore, type StoredPayload } from '../../src/payloads/payload-store.ts'

export class MemoryStore implements PayloadStore {
  readonly #blobs = new Map<string, { content: Buffer; writtenMs: number }>()

  async put(
    key: string,
    content: Readable | Buffer,
    { maxBytes }: { readonly maxBytes: number },
  ): Promise<StoredPayload> {
    const source = Buffer.isBuffer(content) ? Readable.from([content], { objectMode: false }) : content
    try {
      assertPayloadKey(key)
      const meter = new Meter()
      const chunks: Uint8Array[] = []
      for await (const chunk of meter.through(source, maxBytes)) chunks.push(chunk)
      this.#blobs.set(key, { content: Buffer.concat(chunks), writtenMs: Date.now() })
      return meter.total()
    } finally {
      source.destroy()
    }
  }

  async get(key: string): Promise<{ stream: Readable; bytes: number } | undefined> {
    assertPayloadKey(key)
    const blob = this.#blobs.get(key)
    return blob && { stream: Readable.from([blob.content], { objectMode: false }), bytes: blob.content.byteLength }
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) assertPayloadKey(key)
    for (const key of keys) this.#blobs.delete(key)
  }

  async *list(olderThanMs: number, now: number): AsyncGenerator<string> {
    for (const [key, { writtenMs }] of this.#blobs) if (writtenMs <= now - olderThanMs) yield key
  }
}
