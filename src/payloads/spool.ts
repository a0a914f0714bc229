/**
 * Takes in bytes whose number is not known beforehand: few stay in memory, to go into Redis; many go to the store as
 * they come, never all of them in memory.
 */
import { Readable } from 'node:stream'
import { type PayloadStore, PayloadTooLargeError } from './payload-store.ts'

export interface SpoolOptions {
  /** Up to this size the bytes are returned. */
  readonly inlineBytes: number
  readonly maxBytes: number
  readonly store: PayloadStore
  /** Where they go when they are more. */
  readonly key: string
}

export type Spooled =
  | { readonly inline: Buffer }
  | { readonly blob: { readonly key: string; readonly bytes: number; readonly sha256: string } }

/**
 * Reads `source` to its end. A source that fails fails this, and leaves nothing in the store. After an error the source
 * is left as it is (a request must stay open for its reply): reading on or destroying it is up to the caller.
 * @throws PayloadTooLargeError as soon as there are more than `maxBytes`
 */
export async function spool(
  source: AsyncIterable<Uint8Array>,
  { inlineBytes, maxBytes, store, key }: SpoolOptions,
): Promise<Spooled> {
  const chunks = iterate(source)
  try {
    const kept: Uint8Array[] = []
    let keptBytes = 0
    while (keptBytes <= inlineBytes) {
      const next = await chunks.next()
      if (next.done) return { inline: Buffer.concat(kept, keptBytes) }
      kept.push(next.value)
      keptBytes += next.value.byteLength
      if (keptBytes > maxBytes) throw new PayloadTooLargeError(maxBytes)
    }
    const content = Readable.from(rest(kept, chunks), { objectMode: false, highWaterMark: 64 * 1024 })
    return { blob: { key, ...(await store.put(key, content, { maxBytes })) } }
  } catch (error) {
    // Lets go of the source. Not waited for: it comes after a read that may be pending on a slow client.
    chunks.return?.().catch(() => undefined)
    throw error
  }
}

const iterate = (source: AsyncIterable<Uint8Array>): AsyncIterator<Uint8Array> =>
  source instanceof Readable ? source.iterator({ destroyOnReturn: false }) : source[Symbol.asyncIterator]()

/** Calls next() by hand: for await would end the source with the first error of the store. */
async function* rest(kept: Uint8Array[], chunks: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  for (const chunk of kept.splice(0)) yield chunk
  for (;;) {
    const next = await chunks.next()
    if (next.done) return
    yield next.value
  }
}
