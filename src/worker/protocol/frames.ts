/**
 * Frames: how an agent and its slots talk over a pipe. A frame is a small JSON header and raw bytes:
 *
 *   u32 header length · u32 body length (little endian) · header · body
 *
 * A JSON-only channel of Node costs as much and cannot carry bytes; the structured-clone one costs twice as much.
 */
import { isUint8Array } from 'node:util/types'

const prefixBytes = 8
const emptyBody: Buffer = Buffer.alloc(0)

/** What the lengths of a frame can say. */
export const maxFrameBodyBytes = 2 ** 32 - 1

/** Of a string it is UTF-8; several parts follow each other. */
export type FrameBody = string | Uint8Array | readonly Uint8Array[]

/** One frame as bytes. */
export function encodeFrame(header: object, body: FrameBody = emptyBody): Buffer {
  const json = JSON.stringify(header)
  const headerLength = Buffer.byteLength(json)
  const bodyLength = lengthOf(body)
  const frame = Buffer.allocUnsafe(prefixBytes + headerLength + bodyLength)
  frame.writeUInt32LE(headerLength, 0)
  frame.writeUInt32LE(bodyLength, 4)
  frame.write(json, prefixBytes)
  let at = prefixBytes + headerLength
  if (typeof body === 'string') frame.write(body, at)
  else if (isUint8Array(body)) frame.set(body, at)
  else
    for (const part of body) {
      frame.set(part, at)
      at += part.length
    }
  return frame
}

function lengthOf(body: FrameBody): number {
  if (typeof body === 'string') return Buffer.byteLength(body)
  if (isUint8Array(body)) return body.length
  let length = 0
  for (const part of body) length += part.length
  return length
}

/** The part of a frame before its body, for a body that is too large to copy and is written right after it. */
export function encodeFrameHead(header: object, bodyLength: number): Buffer {
  const head = encodeFrame(header)
  head.writeUInt32LE(bodyLength, 4)
  return head
}

export interface FrameLimits {
  readonly headerBytes: number
  readonly bodyBytes: number
}

export class BodyTooLarge extends Error {
  constructor(bytes: number, limit: number) {
    super(`a value or checkpoint of ${bytes} bytes; the limit is ${limit} (MUSTER_MAX_BODY_BYTES)`)
  }
}

/** A part of a frame that spans chunks: filled in place, never concatenated again and again. */
interface Filling {
  readonly bytes: Buffer
  filled: number
}

/**
 * Cuts a byte stream into frames. The body is only good until `onFrame` returns, unless it is large: keep a copy.
 * The writer is not trusted: a frame over the limits makes `push` throw before any of it is kept.
 */
export class FrameReader<Header> {
  readonly #onFrame: (header: Header, body: Buffer) => void
  readonly #limits: FrameLimits
  readonly #prefix: Filling = { bytes: Buffer.alloc(prefixBytes), filled: 0 }
  #header: Filling | undefined
  #body: { readonly header: Header; readonly part: Filling } | undefined

  constructor(
    onFrame: (header: Header, body: Buffer) => void,
    limits: FrameLimits = { headerBytes: maxFrameBodyBytes, bodyBytes: maxFrameBodyBytes },
  ) {
    this.#onFrame = onFrame
    this.#limits = limits
  }

  /** @throws Error when a frame is over the limits or its header is not JSON; the stream is of no use from then on */
  push(chunk: Buffer): void {
    let bytes = chunk
    while (bytes.length > 0) bytes = bytes.subarray(this.#isBetweenFrames ? this.#takeWhole(bytes) : this.#fill(bytes))
  }

  get #isBetweenFrames(): boolean {
    return this.#prefix.filled === 0
  }

  /** The usual case, without a copy: all of a frame lies in the chunk. @returns how many bytes were used */
  #takeWhole(bytes: Buffer): number {
    if (bytes.length < prefixBytes) return this.#fill(bytes)
    const [headerLength, bodyLength] = this.#lengths(bytes)
    const bodyStart = prefixBytes + headerLength
    if (bytes.length < bodyStart + bodyLength) return this.#fill(bytes)
    this.#onFrame(
      parse<Header>(bytes.subarray(prefixBytes, bodyStart)),
      bytes.subarray(bodyStart, bodyStart + bodyLength),
    )
    return bodyStart + bodyLength
  }

  /** Goes on with the part that is not complete. @returns how many bytes were used */
  #fill(bytes: Buffer): number {
    const part = this.#body?.part ?? this.#header ?? this.#prefix
    const count = bytes.copy(part.bytes, part.filled)
    part.filled += count
    if (part.filled === part.bytes.length) this.#partIsComplete(part)
    return count
  }

  #partIsComplete(part: Filling): void {
    const [headerLength, bodyLength] = this.#lengths(this.#prefix.bytes)
    if (part === this.#prefix && headerLength > 0) {
      this.#header = { bytes: Buffer.allocUnsafeSlow(headerLength), filled: 0 }
      return
    }
    if (this.#body === undefined) {
      const header = parse<Header>(this.#header?.bytes ?? emptyBody)
      this.#body = { header, part: { bytes: Buffer.allocUnsafeSlow(bodyLength), filled: 0 } }
      if (bodyLength > 0) return
    }
    const { header, part: body } = this.#body
    this.#prefix.filled = 0
    this.#header = undefined
    this.#body = undefined
    this.#onFrame(header, body.bytes)
  }

  #lengths(prefix: Buffer): [header: number, body: number] {
    const header = prefix.readUInt32LE(0)
    const body = prefix.readUInt32LE(4)
    const { headerBytes, bodyBytes } = this.#limits
    if (header > headerBytes) throw new Error(`a frame has a header of ${header} bytes; the limit is ${headerBytes}`)
    if (body > bodyBytes) throw new BodyTooLarge(body, bodyBytes)
    return [header, body]
  }
}

const parse = <Header>(bytes: Buffer): Header => {
  try {
    return JSON.parse(bytes.toString('utf8')) as Header
  } catch (error) {
    throw new Error('the header of a frame is not JSON', { cause: error })
  }
}
