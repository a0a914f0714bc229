/** /keys: API keys, made and taken away. A secret is shown once, when it is made. */
import { Type } from 'typebox'
import { type KeyView, keyNamePattern } from '../../access/api-key.ts'
import { roles } from '../../access/roles.ts'
import { workersKeyId } from '../../access/worker-token.ts'
import { Problem } from '../../errors.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

const Time = Type.String({ description: 'ISO 8601' })
const iso = (ms: number): string => new Date(ms).toISOString()
const year = 365 * 86_400_000

const keyFields = {
  keyId: Type.String({ description: 'The part of the key that is no secret' }),
  name: Type.String(),
  roles: Type.Array(Type.Enum([...roles])),
  queues: Type.Optional(Type.Array(Type.String(), { description: 'The queues that it is bound to; absent: all' })),
  createdAt: Time,
  rotatedAt: Type.Optional(Time),
  expiresAt: Type.Optional(Time),
  previousUntil: Type.Optional(Type.String({ description: 'ISO 8601: until then the secret before works, too' })),
}
const Key = Type.Object(keyFields, { description: 'An API key' })
const IssuedKey = Type.Object(
  { ...keyFields, key: Type.String({ description: 'To be sent as bearer token; it is not shown again' }) },
  { description: 'An API key with its secret' },
)

const CreateBody = Type.Object(
  {
    name: Type.String({
      minLength: 1,
      maxLength: 100,
      pattern: keyNamePattern.source,
      description: 'For people',
    }),
    roles: Type.Array(Type.Enum([...roles]), { minItems: 1, maxItems: roles.length }),
    queues: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 64 }), {
        minItems: 1,
        maxItems: 100,
        description: 'Bind it to these queues; all when left out',
      }),
    ),
    expiresInMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 100 * year })),
  },
  { additionalProperties: false },
)

const RotateBody = Type.Object(
  {
    graceMs: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: year,
        default: 0,
        description: 'How long the old secret works beside the new',
      }),
    ),
  },
  { additionalProperties: false },
)

const Params = Type.Object({ keyId: Type.String({ maxLength: 64 }) })

export function addKeys(app: App, api: Api): void {
  app.post(
    '/keys',
    {
      schema: {
        operationId: 'createKey',
        summary: 'Make an API key',
        tags: ['access'],
        body: CreateBody,
        response: {
          200: IssuedKey,
          ...problems('request_invalid', 'parameter_unknown', 'json_invalid', 'queue_unknown'),
        },
      },
    },
    async request => {
      const { body } = request
      for (const queue of body.queues ?? []) api.jobs.queues.get(queue)
      const { key, ...view } = await api.access.keys.create(body)
      request.audited = { target: view.id, details: { ...body } }
      return { ...render(view), key }
    },
  )

  app.get(
    '/keys',
    {
      schema: {
        operationId: 'listKeys',
        summary: 'List API keys, without their secrets',
        tags: ['access'],
        response: { 200: Type.Object({ keys: Type.Array(Key) }), ...problems() },
      },
    },
    async () => ({ keys: (await api.access.keys.list()).map(render) }),
  )

  app.post(
    '/keys/:keyId/rotate',
    {
      schema: {
        operationId: 'rotateKey',
        summary: 'Give a key a new secret',
        description:
          'The id "workers" stands for the secret that signs worker tokens: its reply has no key, and with a grace below MUSTER_WORKER_TOKEN_TTL_MS workers may have to join again.',
        tags: ['access'],
        params: Params,
        body: Type.Optional(Type.Union([RotateBody, Type.Null()])),
        response: {
          200: Type.Union([IssuedKey, Type.Object({ keyId: Type.Literal(workersKeyId) })]),
          ...problems('key_not_found', 'request_invalid', 'json_invalid'),
        },
      },
    },
    async request => {
      const { keyId } = request.params
      const { graceMs = 0 } = request.body ?? {}
      request.audited = { details: { graceMs } }
      if (keyId === workersKeyId) {
        await api.access.rotateSigning(graceMs)
        return { keyId: workersKeyId } as const
      }
      const issued = await api.access.keys.rotate(keyId, graceMs)
      if (issued === undefined) throw new Problem('key_not_found')
      const { key, ...view } = issued
      return { ...render(view), key }
    },
  )

  app.delete(
    '/keys/:keyId',
    {
      schema: {
        operationId: 'revokeKey',
        summary: 'Revoke a key: it is good for nothing from now on',
        tags: ['access'],
        params: Params,
        response: { 200: Type.Object({ keyId: Type.String() }), ...problems('key_not_found') },
      },
    },
    async ({ params: { keyId } }) => {
      if (!(await api.access.keys.revoke(keyId))) throw new Problem('key_not_found')
      return { keyId }
    },
  )
}

function render({ id, name, roles, queues, createdAt, rotatedAt, expiresAt, previousUntil }: KeyView) {
  return {
    keyId: id,
    name,
    roles: [...roles],
    ...(queues !== undefined && { queues: [...queues] }),
    createdAt: iso(createdAt),
    ...(rotatedAt !== undefined && { rotatedAt: iso(rotatedAt) }),
    ...(expiresAt !== undefined && { expiresAt: iso(expiresAt) }),
    ...(previousUntil !== undefined && { previousUntil: iso(previousUntil) }),
  }
}
