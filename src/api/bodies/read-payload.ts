/**
 * Reads the payload of a submission in any of its four body forms, byte for byte:
 * raw application/octet-stream, the multipart part "data", {"data": "<base64>"} or {"payload": <JSON>}, the form field
 * "data". Raw and multipart bodies are streamed: what is over the inline limit goes to the payload store.
 */
import type { IncomingMessage } from 'node:http'
import { Busboy } from '@fastify/busboy'
import { Problem } from '../../errors.ts'
import type { StoredContent } from '../../jobs/job-data.ts'
import { type PayloadStore, PayloadTooLargeError } from '../../payloads/payload-store.ts'
import { type Spooled, spool } from '../../payloads/spool.ts'
import { parseJson, printExact } from './json-text.ts'
import { finishOf, listen, readMultipart } from './multipart.ts'

export interface PayloadLimits {
  readonly inlineBytes: number
  readonly maxBytes: number
  /** JSON and form bodies are held in memory, so they have a limit of their own. */
  readonly maxJsonBytes: number
}

/** Where a payload goes that is over the inline limit. */
export interface PayloadTarget extends PayloadLimits {
  readonly store: PayloadStore
  readonly key: string
}

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
  if (type === 'multipart/form-data')
    return await readMultipart(request, contentType, {
      store: part => store(part, target),
      forget: async ({ blob }) => blob && (await target.store.delete([blob.key])),
    })
  if (type === 'application/json') return await fromJson(await readBuffered(request, target), target)
  if (type === 'application/x-www-form-urlencoded') return await fromForm(await readBuffered(request, target), target)
  throw new Problem(
    'content_type_unsupported',
    `The Content-Type "${type.slice(0, 100)}" is not understood here. This call takes application/octet-stream, multipart/form-data, application/json or application/x-www-form-urlencoded.`,
  )
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
  const limit = Math.min(target.maxJsonBytes, Math.ceil((target.maxBytes * 4) / 3) + multipartOverhead)
  const over = new Problem(
    'body_too_large',
    `The limit for a JSON or form body is ${limit} bytes; raw bytes and multipart files may be larger.`,
  )
  if (Number(request.headers['content-length'] ?? 0) > limit) throw over
  const chunks: Buffer[] = []
  let bytes = 0
  // The request must stay open for its reply.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > limit) throw over
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

async function fromJson(body: Buffer, target: PayloadTarget): Promise<StoredContent> {
  const { value, exact } = parseJson(body, true)
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Problem('json_invalid', 'The body must be a JSON object: {"payload": …} or {"data": "<base64>"}.')
  const keys = Object.keys(value)
  const unknown = keys.find(key => key !== 'data' && key !== 'payload')
  if (unknown !== undefined)
    throw new Problem(
      'parameter_unknown',
      `The body has the key "${unknown.slice(0, 100)}"; only "data" and "payload" are known. Did you mean {"payload": {"${unknown.slice(0, 100)}": …}}?`,
    )
  if (keys.length !== 1)
    throw new Problem('data_missing', 'The body must have one of the keys "data" (base64) and "payload" (any JSON).')
  const { data, payload } = value as { data?: unknown; payload?: unknown }
  if (keys[0] === 'payload') return await storeJson(payload, exact as { payload: unknown } | undefined, target)
  if (typeof data !== 'string' || data.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(data)) {
    throw new Problem('data_invalid', '"data" must be a string of base64 (RFC 4648, padded).')
  }
  return await store(only(Buffer.from(data, 'base64')), target)
}

/** @param exact the body with its numbers as they were sent, when doubles cannot hold them */
async function storeJson(
  value: unknown,
  exact: { payload: unknown } | undefined,
  target: PayloadTarget,
): Promise<StoredContent> {
  const text = exact === undefined ? JSON.stringify(value) : printExact(exact.payload)
  const content = Buffer.from(text)
  if (content.length <= target.inlineBytes) return exact === undefined ? { json: value } : { text }
  const { bytes, sha256 } = await target.store.put(target.key, content, target)
  return { blob: { key: target.key, kind: 'json', bytes, sha256 } }
}

async function fromForm(body: Buffer, target: PayloadTarget): Promise<StoredContent> {
  const values: Buffer[] = []
  let unknown: string | undefined
  const parser = new Busboy({
    // In latin1 one character is one byte, so every byte sequence survives the decoding.
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    defCharset: 'latin1',
    limits: { fieldSize: body.length + 1, fields: 16 },
  })
  listen(parser, 'field', (name: string, value: string) => {
    if (name === 'data') values.push(Buffer.from(value, 'latin1'))
    else unknown = name
  })
  const finished = finishOf(parser)
  parser.end(body)
  await finished
  if (unknown !== undefined && /^\s*[{[]/.test(unknown))
    throw new Problem(
      'content_type_unsupported',
      "This looks like JSON, sent as a form: add the header Content-Type: application/json (curl: -H 'Content-Type: application/json').",
    )
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
