/**
 * /workers/{payloads,results,checkpoints}: bytes between a worker and a node, as streams of any size, under a lease.
 */
import { createHash } from 'node:crypto'
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import type { Caller } from '../../access/roles.ts'
import { CheckpointReply, UploadReply } from '../../contract/worker-protocol.ts'
import { Problem } from '../../errors.ts'
import { readData } from '../../jobs/admin/inspect.ts'
import { type BlobRef, resultKey } from '../../jobs/job-data.ts'
import { PayloadTooLargeError } from '../../payloads/payload-store.ts'
import { spool } from '../../payloads/spool.ts'
import type { Api, App } from '../api.ts'
import { depthGuarded } from '../bodies/json-text.ts'
import { openBlob, sendBlob } from '../bodies/render-value.ts'
import { requireLeaseOf } from '../plugins/worker-authorization.ts'
import { problems, WorkIdParams } from '../schemas.ts'

const TokenQuery = Type.Object({ token: Type.String({ minLength: 1, maxLength: 256 }) })
const UploadQuery = Type.Object({ ...TokenQuery.properties, kind: Type.Enum(['bytes', 'json']) })

/** `app` must leave the bodies alone: they are read here. */
export function addWorkerBlobs(app: App, { settings, jobs, store, fleet }: Api): void {
  const blobReply = {
    200: {
      description: 'The bytes',
      content: { 'application/octet-stream': { schema: {} }, 'application/json': { schema: {} } },
    },
    ...problems('job_not_found', 'lease_lost', 'parameter_invalid', 'parameter_unknown'),
  }
  const uploadProblems = problems(
    'job_not_found',
    'lease_lost',
    'body_too_large',
    'parameter_invalid',
    'parameter_unknown',
  )

  app.get(
    '/workers/payloads/:workId',
    {
      schema: {
        operationId: 'workerPayload',
        summary: 'Stream a payload over the inline limit',
        tags: ['workers'],
        params: WorkIdParams,
        querystring: TokenQuery,
        response: blobReply,
      },
    },
    async ({ caller, params: { workId }, query: { token } }, reply) => {
      await requireLease(caller, workId, token)
      const blob = (await readData(jobs.ofWorkId(workId).queue, workId))?.payload.blob
      if (blob === undefined) throw new Problem('job_not_found', 'The payload of this job stands in its lease.')
      return await send(reply, blob)
    },
  )

  app.get(
    '/workers/checkpoints/:workId',
    {
      schema: {
        operationId: 'workerCheckpoint',
        summary: 'Stream the newest checkpoint',
        tags: ['workers'],
        params: WorkIdParams,
        querystring: TokenQuery,
        response: blobReply,
      },
    },
    async ({ caller, params: { workId }, query: { token } }, reply) => {
      await requireLease(caller, workId, token)
      const checkpoint = await jobs.ofWorkId(workId).checkpoints.read(workId)
      if (checkpoint === undefined) throw new Problem('job_not_found', 'This job has no checkpoint.')
      if (checkpoint.blob !== undefined) return await send(reply, checkpoint.blob)
      return sendBytes(reply, Buffer.from(checkpoint.base64 ?? '', 'base64'))
    },
  )

  app.put(
    '/workers/checkpoints/:workId',
    {
      schema: {
        operationId: 'workerKeepCheckpoint',
        summary: 'Keep bytes for the next attempt, in place of those before',
        tags: ['workers'],
        params: WorkIdParams,
        querystring: TokenQuery,
        response: { 200: CheckpointReply, ...uploadProblems },
      },
    },
    async ({ caller, params: { workId }, query: { token }, raw }) => {
      await requireLease(caller, workId, token)
      const bytes = await orTooLarge(jobs.ofWorkId(workId).checkpoints.keep(workId, token, raw))
      if (bytes === undefined) throw new Problem('lease_lost')
      return { bytes }
    },
  )

  app.put(
    '/workers/results/:workId',
    {
      schema: {
        operationId: 'workerUploadResult',
        summary: 'Upload a value over the inline limit; the reply goes into the completion',
        tags: ['workers'],
        params: WorkIdParams,
        querystring: UploadQuery,
        response: { 200: UploadReply, ...uploadProblems },
      },
    },
    async ({ caller, params: { workId }, query: { token, kind }, raw }) => {
      await requireLease(caller, workId, token)
      const key = resultKey(workId, token)
      const limits = { inlineBytes: 0, maxBytes: settings.maxBodyBytes }
      const spooled = await orTooLarge(spool(kind === 'json' ? depthGuarded(raw) : raw, { ...limits, store, key }))
      if ('inline' in spooled) return { value: kind === 'json' ? { json: null } : { base64: '' } }
      const { bytes, sha256 } = spooled.blob
      return { value: { blob: { url: key, kind, bytes, sha256 } } }
    },
  )

  async function requireLease(caller: Caller, workId: string, token: string): Promise<void> {
    await requireLeaseOf(caller, token, fleet.registry)
    if (!(await jobs.ofWorkId(workId).leases.holds({ workId, token }))) throw new Problem('lease_lost')
  }

  /** The reply is a stream: nothing for the serializer to do. */
  async function send(reply: unknown, blob: BlobRef): Promise<never> {
    return sendBlob(reply as FastifyReply, blob, await openBlob(blob, store)) as never
  }

  function sendBytes(reply: unknown, bytes: Buffer): never {
    const sha256 = createHash('sha256').update(bytes).digest('hex')
    return sendBlob(reply as FastifyReply, { kind: 'bytes', bytes: bytes.byteLength, sha256 }, bytes) as never
  }

  async function orTooLarge<T>(upload: Promise<T>): Promise<T> {
    try {
      return await upload
    } catch (error) {
      if (error instanceof PayloadTooLargeError)
        throw new Problem('body_too_large', `The limit here is ${settings.maxBodyBytes} bytes.`)
      throw error
    }
  }
}
