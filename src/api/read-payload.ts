/**
 * Reads the payload of a submission in any of its four body forms, byte for byte:
 * raw application/octet-stream, the multipart part "data", {"data": "<base64>"} or {"payload": <JSON>}, the form field "data".
 * Raw and multipart bodies are streamed: what is over the inline limit goes to the payload store.
 */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { Busboy } from '@fastify/busboy'
import { Problem } from '../errors.ts'
import type { StoredContent } from '../jobs/job-data.ts'
import { type PayloadStore, PayloadTooLargeError } from '../payloads/payload-store.ts'
import { type Spooled, spool } from '../payloads/spool.ts'

export interface PayloadLimits {
  readonly inlineBytes: number
  readonly maxBytes: number
}

/** Where a payload goes that is over the inline limit. */
export interface PayloadTarget extends PayloadLimits {
  readonly store: PayloadStore
  readonly key: string
}

/** JSON and form bodies are held in memory, so they have a limit of their own. */
export const maxBufferedBytes = 32 * 1024 * 1024

/**
 * @returns what was sent; undefined when the request has no body
 * @throws Problem for every fault of the body; nothing is left in the store then
 */
export async function readPayload(request: IncomingMessage, target: PayloadTarget): Promise<StoredContent | undefined> {
  const contentType = request.headers['content-type']
  if (!hasBody(request))
    return contentType === undefined ? undefined : await readAs(mediaType(contentType), contentType, request, target)
  if (contentType === undefined) throw new Problem('content_type_missing')
  if (Number(request.headers['content-length'] ?? 0) > target.maxBytes + multipartOverhead)
    throw tooLarge(target.maxBytes)
  return await readAs(mediaType(contentType), contentType, request, target)
}

/** Boundaries and headers around the data. */
const multipartOverhead = 64 * 1024

const hasBody = (request: IncomingMessage): boolean =>
  request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0

const mediaType = (contentType: string): string => (contentType.split(';')[0] as string).trim().toLowerCase()

async function readAs(
  type: string,
  contentType: string,
  request: IncomingMessage,
  target: PayloadTarget,
): Promise<StoredContent> {
  if (type === 'application/octet-stream') {
    const length = request.headers['content-length']
    if (length !== undefined && Number(length) <= target.inlineBytes)
      return { base64: (await readWhole(request)).toString('base64') }
    return await store(request, target)
  }
  if (type === 'multipart/form-data') return await readMultipart(request, contentType, target)
  if (type === 'application/json') return await fromJson(await readBuffered(request, target), target)
  if (type === 'application/x-www-form-urlencoded') return await fromForm(await readBuffered(request, target), target)
  throw new Problem('content_type_unsupported', `The Content-Type "${type.slice(0, 100)}" is not understood here.`)
}

/** A body that is known to be small: most are, and an iterator would cost more than all the rest of the reading. */
function readWhole(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.once('end', () => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)))
    request.once('error', reject)
    request.once('close', () => {
      if (!request.complete) reject(new Error('the client went away'))
    })
  })
}

async function store(source: AsyncIterable<Uint8Array>, target: PayloadTarget): Promise<StoredContent> {
  let spooled: Spooled
  try {
    spooled = await spool(source, target)
  } catch (error) {
    throw error instanceof PayloadTooLargeError ? tooLarge(target.maxBytes) : error
  }
  if ('inline' in spooled) return { base64: spooled.inline.toString('base64') }
  return { blob: { ...spooled.blob, kind: 'bytes' } }
}

const tooLarge = (maxBytes: number): Problem => new Problem('body_too_large', `The limit here is ${maxBytes} bytes.`)

async function readBuffered(request: IncomingMessage, target: PayloadTarget): Promise<Buffer> {
  const limit = Math.min(maxBufferedBytes, Math.ceil((target.maxBytes * 4) / 3) + multipartOverhead)
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > limit)
      throw new Problem(
        'body_too_large',
        `The limit for a JSON or form body is ${limit} bytes; raw bytes and multipart files may be larger.`,
      )
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

async function readMultipart(
  request: IncomingMessage,
  contentType: string,
  target: PayloadTarget,
): Promise<StoredContent> {
  let parser: InstanceType<typeof Busboy>
  try {
    parser = new Busboy({
      headers: { 'content-type': contentType },
      // A part named "data" counts as a file also without a file name, so that its bytes are not decoded as text.
      isPartAFile: name => name === 'data',
      limits: { files: 2, fields: 1, parts: 3, fieldSize: 1024 },
    })
  } catch (error) {
    throw new Problem('multipart_invalid', `The multipart body cannot be read: ${(error as Error).message}.`, {
      cause: error,
    })
  }
  let found: Promise<StoredContent> | undefined
  let part: Readable | undefined
  let fault: Problem | undefined
  // It may report one fault several times; the first one is awaited below.
  parser.on('error', () => undefined)
  parser.on('file', (_name: string, stream: Readable) => {
    if (found !== undefined)
      fault = new Problem('multipart_invalid', 'The multipart body has more than one part named "data".')
    if (found !== undefined) return void stream.resume()
    stream.on('error', () => undefined)
    part = stream
    found = store(stream, target)
    // A fault of this part ends the parsing; it is awaited below.
    found.catch(error => parser.destroy(error as Error))
  })
  parser.on('field', (name: string) => {
    fault = new Problem(
      'parameter_unknown',
      `The multipart body has a part named "${name.slice(0, 100)}"; only "data" is known.`,
    )
  })
  const finished = once(parser, 'finish')
  request.once('close', () => {
    if (request.complete) return
    // A part that is being stored would wait for its end for ever.
    const gone = new Error('the client went away')
    part?.destroy(gone)
    parser.destroy(gone)
  })
  request.pipe(parser)
  try {
    await finished
    const content = await found
    if (fault !== undefined) throw await forget(content, target, fault)
    if (content === undefined) throw new Problem('data_missing', 'The multipart body has no part named "data".')
    return content
  } catch (error) {
    request.unpipe(parser)
    if (error instanceof Problem) throw error
    throw new Problem('multipart_invalid', `The multipart body is broken: ${(error as Error).message}.`, {
      cause: error,
    })
  }
}

async function forget(content: StoredContent | undefined, target: PayloadTarget, fault: Problem): Promise<Problem> {
  if (content?.blob !== undefined) await target.store.delete([content.blob.key])
  return fault
}

async function fromJson(body: Buffer, target: PayloadTarget): Promise<StoredContent> {
  const value = parseJson(body)
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Problem('json_invalid', 'The body must be a JSON object.')
  const keys = Object.keys(value)
  const unknown = keys.find(key => key !== 'data' && key !== 'payload')
  if (unknown !== undefined)
    throw new Problem(
      'parameter_unknown',
      `The body has the key "${unknown.slice(0, 100)}"; only "data" and "payload" are known.`,
    )
  if (keys.length !== 1)
    throw new Problem('data_missing', 'The body must have one of the keys "data" (base64) and "payload" (any JSON).')
  const { data, payload } = value as { data?: unknown; payload?: unknown }
  if (keys[0] === 'payload') return await storeJson(payload, target)
  if (typeof data !== 'string' || data.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(data)) {
    throw new Problem('data_invalid', '"data" must be a string of base64 (RFC 4648, padded).')
  }
  return await store(only(Buffer.from(data, 'base64')), target)
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch (error) {
    throw new Problem('json_invalid', `The body is not valid JSON: ${(error as Error).message}.`, { cause: error })
  }
}

async function storeJson(value: unknown, target: PayloadTarget): Promise<StoredContent> {
  const text = Buffer.from(JSON.stringify(value))
  if (text.length <= target.inlineBytes) return { json: value }
  const { bytes, sha256 } = await target.store.put(target.key, text, target)
  return { blob: { key: target.key, kind: 'json', bytes, sha256 } }
}

async function fromForm(body: Buffer, target: PayloadTarget): Promise<StoredContent> {
  const values: Buffer[] = []
  let unknown: string | undefined
  const parser = new Busboy({
    // Decoded as latin1, one character is one byte: what was sent comes out, whatever it is.
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    defCharset: 'latin1',
    limits: { fieldSize: body.length + 1, fields: 16 },
  })
  parser.on('field', (name: string, value: string) => {
    if (name === 'data') values.push(Buffer.from(value, 'latin1'))
    else unknown = name
  })
  const finished = once(parser, 'finish')
  parser.end(body)
  await finished
  if (unknown !== undefined)
    throw new Problem('parameter_unknown', `The form has a field "${unknown.slice(0, 100)}"; only "data" is known.`)
  const [data] = values
  if (data === undefined) throw new Problem('data_missing', 'The form has no field "data".')
  if (values.length > 1) throw new Problem('data_invalid', 'The form has more than one field "data".')
  return await store(only(data), target)
}

async function* only(buffer: Buffer): AsyncGenerator<Uint8Array> {
  yield buffer
}
