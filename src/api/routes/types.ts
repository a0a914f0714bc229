/** GET /types: what may be submitted here, and what each type takes. */
import { Type } from 'typebox'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

const TypeSchema = Type.Object({
  type: Type.String({ description: 'For `PUT /enqueue?type=`' }),
  description: Type.Optional(Type.String()),
  source: Type.Enum(['built-in', 'handlers', 'workers'], {
    description:
      'built-in: comes with Muster; handlers: of the file that this node was started with; workers: only workers elsewhere said that they run it',
  }),
  isolation: Type.Optional(
    Type.Enum(['slot', 'process'], {
      description:
        'slot: attempts share the processes of a worker; process: each has one of its own, which ends with it (in queues with `isolation: process` all have). Absent: only workers elsewhere know',
    }),
  ),
  payload: Type.Optional(
    Type.Record(Type.String(), Type.Unknown(), {
      description: 'JSON schema of the payload, checked when a job is submitted; absent: anything is taken',
    }),
  ),
  example: Type.String({ description: 'A request that submits one, as a curl command' }),
})

export function addTypes(app: App, { types }: Api): void {
  app.get(
    '/types',
    {
      schema: {
        operationId: 'listTypes',
        summary: 'List the types of jobs, with what they take',
        description:
          'By name. A key that is bound to queues sees those that this node itself knows, not those of workers elsewhere.',
        tags: ['work'],
        response: { 200: Type.Object({ types: Type.Array(TypeSchema) }), ...problems() },
      },
    },
    async ({ caller, host, protocol }) => {
      const known = await types.list({ withRemote: caller.queues === undefined })
      return {
        types: known.map(({ type, description, payload, isolation = 'slot' as const, source }) => ({
          type,
          ...(description !== undefined && { description }),
          source,
          ...(source !== 'workers' && { isolation }),
          ...(payload !== undefined && { payload: payload as Record<string, unknown> }),
          example: curlExample(`${protocol}://${host}`, type, payload),
        })),
      }
    },
  )
}

/** The first example of the schema; without one, a payload for the reader to fill in. */
function curlExample(url: string, type: string, payload: object | undefined): string {
  if (type === 'sha512')
    return `curl -X PUT '${url}/enqueue?iterations=1000' -H 'Content-Type: application/octet-stream' --data-binary @file`
  const target = `curl -X PUT '${url}/enqueue?type=${type}'`
  if (payload === undefined) return target
  const [example = {}] = (payload as { examples?: readonly unknown[] }).examples ?? []
  const body = JSON.stringify({ payload: example }).replaceAll("'", "'\\''")
  return `${target} -H 'Content-Type: application/json' -d '${body}'`
}
