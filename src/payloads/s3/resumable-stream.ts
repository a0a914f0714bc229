/**
 * A download that goes on where it broke off: S3 ends a connection that a slow reader leaves idle, and any connection
 * may break. A reply that falls silent is a broken one. Closing the stream lets go of the connection, also before the
 * first read.
 */
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { within } from '../../within.ts'

export interface ResumableOptions {
  /** All that is to come. */
  readonly bytes: number
  /** Opens the same bytes again from this offset. */
  readonly reopen: (from: number) => Promise<Readable>
  readonly stalledMs: number
}

/** Without a byte in between. */
const maxTries = 4
const backoffMs = (tries: number): number => Math.random() * 200 * 2 ** tries

export function resumableStream(first: Readable, { bytes, reopen, stalledMs }: ResumableOptions): Readable {
  let body: Readable | undefined = first
  let chunks: AsyncIterator<Buffer> | undefined
  let sent = 0
  const letGo = (): void => {
    // Its error is no news: whoever destroys it knows.
    body?.on('error', () => undefined).destroy()
    body = undefined
    chunks = undefined
  }

  const next = async (): Promise<Buffer | undefined> => {
    for (let tries = 1; ; tries += 1) {
      try {
        body ??= await reopen(sent)
        chunks ??= body[Symbol.asyncIterator]() as AsyncIterator<Buffer>
        const chunk = await within(stalledMs, 'S3', chunks.next())
        if (chunk.done !== true) return chunk.value
        if (sent >= bytes) return undefined
        throw new Error(`S3 ended its reply after ${sent} of ${bytes} bytes`)
      } catch (error) {
        letGo()
        if (tries === maxTries || stream.destroyed) throw error
        await delay(backoffMs(tries))
      }
    }
  }
  // Yields outside of any try: an error of the reader is thrown in here, and must not look like one of S3.
  const read = async function* (): AsyncGenerator<Buffer> {
    for (let chunk = await next(); chunk !== undefined; chunk = await next()) {
      sent += chunk.byteLength
      yield chunk
    }
  }
  const stream = Readable.from(read(), { objectMode: false, highWaterMark: 256 * 1024 })
  stream.once('close', letGo)
  return stream
}
