/** How a stored value is shown to clients. */
import { pipeline, Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { Problem } from '../../errors.ts'
import type { PulledResult } from '../../jobs/collect/results.ts'
import { type BlobRef, jsonOf, type StoredContent, unwrapRawJson } from '../../jobs/job-data.ts'
import { checkedStream } from '../../payloads/checked-stream.ts'
import type { PayloadStore } from '../../payloads/payload-store.ts'

/** One entry of the reply to POST /pullCompleted. */
export interface PulledEntry {
  readonly 'Work ID': string
  readonly Value?: unknown
  readonly Encoding?: 'base64'
  readonly 'Value URL'?: string
  readonly 'Value Bytes'?: number
  readonly Error?: { readonly code: string; readonly message: string }
}

/** Values in Redis stand in the reply (bytes as base64, with Encoding); those in the payload store are a URL away. */
export function renderPulled({ workId, value, failure }: PulledResult): PulledEntry {
  if (failure !== undefined) return { 'Work ID': workId, Error: failure }
  if (value?.blob !== undefined)
    return { 'Work ID': workId, Value: null, 'Value URL': `/jobs/${workId}/result`, 'Value Bytes': value.blob.bytes }
  if (value?.base64 !== undefined) return { 'Work ID': workId, Value: value.base64, Encoding: 'base64' }
  return { 'Work ID': workId, Value: value === undefined ? null : jsonOf(value) }
}

/** Bytes are sent as they are; JSON as {"workId": …, "value": …}. Blobs are streamed and checked on the way. */
export async function sendValue(
  reply: FastifyReply,
  workId: string,
  value: StoredContent,
  store: PayloadStore,
): Promise<FastifyReply> {
  if (value.blob !== undefined) {
    const stream = await openBlob(value.blob, store)
    if (value.blob.kind === 'bytes') return sendBlob(reply, value.blob, stream)
    return reply.type('application/json; charset=utf-8').send(Readable.from(wrapped(workId, stream)))
  }
  if (value.base64 !== undefined)
    return reply.type('application/octet-stream').send(Buffer.from(value.base64, 'base64'))
  return reply
    .type('application/json; charset=utf-8')
    .send(unwrapRawJson(JSON.stringify({ workId, value: jsonOf(value) })))
}

/** For routes whose replies hold values that are passed on as they came (jobs/job-data.ts): an onSend hook. */
export function unwrapValues(
  _request: unknown,
  _reply: unknown,
  payload: unknown,
  done: (error: null, payload: unknown) => void,
): void {
  done(null, typeof payload === 'string' ? unwrapRawJson(payload) : payload)
}

/** A payload as GET /jobs/{workId} shows it; what is over the inline limit is described only. */
export function renderPayload(payload: StoredContent): object {
  if (payload.blob !== undefined) {
    const { kind, bytes, sha256 } = payload.blob
    return { blob: { kind, bytes, sha256 } }
  }
  return payload.base64 === undefined ? { json: jsonOf(payload) } : { base64: payload.base64 }
}

/** Sends a blob with its length and checksum (RFC 9530). */
export function sendBlob(reply: FastifyReply, blob: Omit<BlobRef, 'key'>, content: Readable | Buffer): FastifyReply {
  return reply
    .type(blob.kind === 'json' ? 'application/json' : 'application/octet-stream')
    .header('content-length', blob.bytes)
    .header('repr-digest', `sha-256=:${Buffer.from(blob.sha256, 'hex').toString('base64')}:`)
    .send(content)
}

/** @throws Problem job_not_found when the bytes are gone */
export async function openBlob(blob: BlobRef, store: PayloadStore): Promise<Readable> {
  const found = await store.get(blob.key)
  if (found === undefined) throw new Problem('job_not_found', 'The bytes of this job are gone: it expired just now.')
  const check = checkedStream(blob)
  // A wrong checksum destroys the reply half-way, so that the client cannot take it for whole.
  pipeline(found.stream, check, () => undefined)
  return check
}

async function* wrapped(workId: string, stream: AsyncIterable<Buffer>): AsyncGenerator<Buffer | string> {
  yield `{"workId":${JSON.stringify(workId)},"value":`
  yield* stream
  yield '}'
}
