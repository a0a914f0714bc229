/** PUT /enqueue: takes one job. */
import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { type Static, Type } from 'typebox'
import { Problem } from '../../errors.ts'
import { payloadKey, type StoredContent } from '../../jobs/job-data.ts'
import { arrivalOf } from '../../jobs/submit/memory-guard.ts'
import { reserveWorkId, type Submission, type Submitter } from '../../jobs/submit/submit.ts'
import type { KnownType } from '../../jobs/submit/types.ts'
import { NotDurableError } from '../../redis/redis-errors.ts'
import { type Durability, durabilities } from '../../redis/writes/durable-writes.ts'
import type { Api, App } from '../api.ts'
import { readPayload } from '../bodies/read-payload.ts'
import { problems, QueueName } from '../schemas.ts'

/** About an hour of hashing; the run-time limit of an attempt is a day. */
const maxIterations = 10_000_000_000

const Query = Type.Object({
  iterations: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: maxIterations,
      description: 'Selects the type sha512: SHA-512 applied this many times to the data',
    }),
  ),
  type: Type.Optional(
    Type.String({ minLength: 1, maxLength: 128, description: 'The type of the job; may be left out with iterations' }),
  ),
  queue: Type.Optional(QueueName),
  priority: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 2_097_151,
      default: 0,
      description: '0 runs first, then 1, 2, …; equal ones in order of arrival',
    }),
  ),
  delayMs: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 31_536_000_000,
      default: 0,
      description: 'Not before this many ms from now; at most a year',
    }),
  ),
  attempts: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 1000, description: 'How often it may be tried; default MUSTER_ATTEMPTS' }),
  ),
  timeoutMs: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 604_800_000,
      description: 'Run-time limit of one attempt; default MUSTER_TIMEOUT_MS, at most a week',
    }),
  ),
  durability: Type.Optional(
    Type.Enum([...durabilities], {
      description:
        'replicated: answered once a second Redis has the job; local: once the primary has it. Default MUSTER_DURABILITY, which is also the most that may be asked for',
    }),
  ),
})

const Headers = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      description:
        'The same key of the same caller gives the same Work ID, and one job, as long as the job is remembered',
    }),
  ),
})

const Accepted = {
  description: 'The job is kept',
  headers: {
    'Muster-Durability': Type.Enum([...durabilities], {
      description: 'What it has reached: replicated, a second Redis has it; local, the primary has it',
    }),
    Location: Type.String({ description: 'Where to look at the job' }),
  },
  content: { 'application/json': { schema: Type.Object({ 'Work ID': Type.String() }) } },
}

const bytes = { schema: { description: 'The data, byte for byte' } }
/** Documents the body without making Fastify parse or validate it: it is read as a stream. */
export const enqueueRequestBody = {
  description: 'The payload in one of four forms. A type that needs none may be submitted without a body.',
  content: {
    'application/octet-stream': bytes,
    'multipart/form-data': {
      schema: {
        type: 'object',
        required: ['data'],
        properties: {
          data: { description: 'A file (or field) with the data', contentMediaType: 'application/octet-stream' },
        },
      },
    },
    'application/json': {
      schema: {
        oneOf: [
          {
            type: 'object',
            required: ['data'],
            additionalProperties: false,
            properties: { data: { type: 'string', contentEncoding: 'base64', description: 'The data' } },
          },
          {
            type: 'object',
            required: ['payload'],
            additionalProperties: false,
            properties: { payload: { description: 'Any JSON value, for types that take JSON' } },
          },
        ],
      },
    },
    'application/x-www-form-urlencoded': {
      schema: { type: 'object', required: ['data'], properties: { data: { type: 'string' } } },
    },
  },
}

type EnqueueRequest = FastifyRequest<{ Querystring: Static<typeof Query>; Headers: Static<typeof Headers> }>

export function addEnqueue(app: App, { access, settings, jobs, types, store }: Api): void {
  const schema = {
    operationId: 'enqueue',
    summary: 'Submit a job',
    tags: ['work'],
    querystring: Query,
    headers: Headers,
    response: {
      200: Accepted,
      ...problems(
        ...([
          'parameter_invalid',
          'parameter_unknown',
          'iterations_missing',
          'type_unknown',
          'payload_invalid',
          'data_missing',
          'data_invalid',
        ] as const),
        ...([
          'json_invalid',
          'json_too_deep',
          'multipart_invalid',
          'idempotency_key_invalid',
          'queue_unknown',
          'idempotency_key_reused',
          'queue_draining',
        ] as const),
        ...([
          'body_too_slow',
          'body_too_large',
          'content_type_missing',
          'content_type_unsupported',
          'overloaded',
        ] as const),
      ),
    },
  }

  app.put('/enqueue', { schema }, submit)
  // What most people try first.
  app.post('/enqueue', { schema: { ...schema, hide: true } as typeof schema }, submit)

  async function submit(request: EnqueueRequest, reply: FastifyReply): Promise<{ 'Work ID': string }> {
    const {
      queue = 'default',
      priority = 0,
      delayMs = 0,
      attempts = settings.attempts,
      timeoutMs,
      iterations,
      durability,
    } = request.query
    const type = await chooseType(request.query, types, request.caller.queues !== undefined)
    const parts = jobs.of(queue)
    const reached = checkDurability(durability, parts.submitter)
    const idempotencyKey = readIdempotencyKey(request)
    const owner = request.caller.kind === 'key' ? request.caller.id : undefined
    const workId = reserveWorkId(
      queue,
      idempotencyKey === undefined
        ? undefined
        : { key: idempotencyKey, owner: owner ?? '', secret: access.deploymentSecret },
    )
    await parts.control.checkTakesJobs(idempotencyKey === undefined ? undefined : workId)
    jobs.memoryGuard.admit(arrivalOf(settings, Number(request.headers['content-length'] ?? 0)))
    const target = {
      inlineBytes: settings.inlineBytes,
      maxBytes: settings.maxBodyBytes,
      maxJsonBytes: settings.maxJsonBytes,
      store,
      key: payloadKey(workId),
    }
    const sent = await readPayload(request.raw, target)
    try {
      checkPayload(type, sent, iterations !== undefined)
      const payload = sent ?? { json: null }
      const options = {
        type: type.type,
        priority,
        delayMs,
        attempts,
        ...(timeoutMs !== undefined && { timeoutMs }),
        ...(iterations !== undefined && { params: { iterations } }),
      }
      const submission: Submission = {
        workId,
        payload,
        ...options,
        ...(owner !== undefined && { owner }),
        ...(idempotencyKey !== undefined && { fingerprint: fingerprintOf(options, payload) }),
      }
      const added = await parts.submitter.submit(submission, {
        ...(durability !== undefined && { durability }),
        isGone: () => reply.raw.destroyed,
      })
      if (!added) await dropBlob(sent)
    } catch (error) {
      // Only when it is certain that no job refers to it: after a lost reply the job may well be there.
      if (error instanceof Problem || (error instanceof NotDurableError && !error.mayHaveHappened)) await dropBlob(sent)
      throw error
    }
    void reply.header('location', `/jobs/${workId}`)
    void reply.header('muster-durability', reached)
    return { 'Work ID': workId }
  }

  async function dropBlob(content: StoredContent | undefined): Promise<void> {
    if (content?.blob !== undefined) await store.delete([content.blob.key])
  }
}

/** @returns what an acknowledged job will have reached */
function checkDurability(asked: Durability | undefined, submitter: Submitter): Durability {
  const reached = submitter.reached(asked)
  if (asked === undefined || asked === reached) return reached
  throw new Problem(
    'parameter_invalid',
    '"durability" cannot be replicated here: this node works with MUSTER_DURABILITY=local, so no second copy of the job is waited for.',
  )
}

async function chooseType(
  query: { iterations?: number; type?: string },
  types: Api['types'],
  isBound: boolean,
): Promise<KnownType> {
  if (query.iterations === undefined && query.type === undefined) throw new Problem('iterations_missing')
  if (query.iterations === undefined && query.type === 'sha512')
    throw new Problem('iterations_missing', 'The type sha512 needs iterations.')
  if (query.iterations !== undefined && query.type !== undefined && query.type !== 'sha512') {
    throw new Problem(
      'parameter_invalid',
      `"iterations" belongs to the type sha512, not to "${query.type.slice(0, 128)}".`,
    )
  }
  return await types.require(query.type ?? 'sha512', isBound)
}

function checkPayload(type: KnownType, sent: StoredContent | undefined, needsData: boolean): void {
  if (sent === undefined && needsData) throw new Problem('data_missing')
  if ((sent?.json !== undefined || sent?.text !== undefined) && needsData)
    throw new Problem('payload_invalid', 'The type sha512 takes bytes: send them raw, or as {"data": "<base64>"}.')
  if (type.check === undefined) return
  if (sent?.base64 !== undefined || sent?.blob?.kind === 'bytes')
    throw new Problem('payload_invalid', `The type "${type.type}" takes JSON: send {"payload": …} as application/json.`)
  if (sent?.blob !== undefined)
    throw new Problem('payload_invalid', `The payload is too large for the type "${type.type}".`)
  const fault = type.check(sent?.text === undefined ? (sent?.json ?? null) : JSON.parse(sent.text))
  if (fault !== undefined) throw new Problem('payload_invalid', fault)
}

function readIdempotencyKey(request: FastifyRequest): string | undefined {
  const key = request.headers['idempotency-key']
  if (key === undefined) return undefined
  if (typeof key !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(key)) throw new Problem('idempotency_key_invalid')
  return key
}

function fingerprintOf(options: object, payload: StoredContent): string {
  const content = payload.blob === undefined ? payload : { kind: payload.blob.kind, sha256: payload.blob.sha256 }
  return createHash('sha256')
    .update(JSON.stringify([options, content]))
    .digest('base64url')
}
