/**
 * Frames: how an agent and its slots talk over a pipe. A frame is a small JSON header and raw bytes:
 *
 *   u32 header length · u32 body length (little endian) · header · body
 *
 * A JSON-only channel of Node costs as much and cannot carry bytes; the structured-clone one costs twice as much.
 */

const prefixBytes = 8
const emptyBody: Buffer = Buffer.alloc(0)

/** One frame as bytes. A string body is written as UTF-8. */
export function encodeFrame(header: object, body: string | Uint8Array = emptyBody): Buffer {
  const json = JSON.stringify(header)
  const headerLength = Buffer.byteLength(json)
  const bodyLength = Buffer.byteLength(body)
  const frame = Buffer.allocUnsafe(prefixBytes + headerLength + bodyLength)
  frame.writeUInt32LE(headerLength, 0)
  frame.writeUInt32LE(bodyLength, 4)
  frame.write(json, prefixBytes)
  if (typeof body === 'string') frame.write(body, prefixBytes + headerLength)
  else frame.set(body, prefixBytes + headerLength)
  return frame
}

/** The part of a frame before its body, for a body that is too large to copy and is written right after it. */
export function encodeFrameHead(header: object, bodyLength: number): Buffer {
  const head = encodeFrame(header)
  head.writeUInt32LE(bodyLength, 4)
  return head
}

/** Cuts a byte stream into frames. The body is only good until `onFrame` returns, unless it is large: keep a copy. */
export class FrameReader<Header> {
  readonly #onFrame: (header: Header, body: Buffer) => void
  #rest: Buffer = emptyBody
  /** A frame whose body spans chunks: filled in place, never concatenated again and again. */
  #large: { header: Header; body: Buffer; filled: number } | undefined

  constructor(onFrame: (header: Header, body: Buffer) => void) {
    this.#onFrame = onFrame
  }

  push(chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    this.#rest = emptyBody
    for (;;) {
      if (this.#large !== undefined) {
        bytes = this.#fill(this.#large, bytes)
        if (this.#large !== undefined) return
      }
      const taken = this.#take(bytes)
      if (taken === 0) break
      bytes = bytes.subarray(taken)
    }
    this.#rest = bytes
  }

  /** @returns how many bytes were used; 0 when the header is not all there */
  #take(bytes: Buffer): number {
    if (bytes.length < prefixBytes) return 0
    const bodyStart = prefixBytes + bytes.readUInt32LE(0)
    if (bytes.length < bodyStart) return 0
    const bodyLength = bytes.readUInt32LE(4)
    const header = JSON.parse(bytes.toString('utf8', prefixBytes, bodyStart)) as Header
    if (bytes.length >= bodyStart + bodyLength) {
      this.#onFrame(header, bytes.subarray(bodyStart, bodyStart + bodyLength))
      return bodyStart + bodyLength
    }
    this.#large = { header, body: Buffer.allocUnsafeSlow(bodyLength), filled: 0 }
    return bodyStart
  }

  #fill(large: { header: Header; body: Buffer; filled: number }, bytes: Buffer): Buffer {
    const count = Math.min(bytes.length, large.body.length - large.filled)
    bytes.copy(large.body, large.filled, 0, count)
    large.filled += count
    if (large.filled === large.body.length) {
      this.#large = undefined
      this.#onFrame(large.header, large.body)
    }
    return bytes.subarray(count)
  }
}
