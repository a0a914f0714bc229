/** PUT /handlers: other handlers for the whole deployment, without a restart of anything. */
import { Type } from 'typebox'
import { Problem, StartupError } from '../../errors.ts'
import { bundleText } from '../../handlers/bundle-handlers.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

const bodyLimit = 8 * 1024 * 1024
const contentTypes = ['text/javascript', 'application/javascript', 'text/typescript', 'application/octet-stream']
const maxFaultLength = 4000
/** What a body is called in what is said of it. */
const name = '/handlers.ts'

/** `app` must have no parsers of bodies yet. */
export function addHandlers(app: App, { handlers, checkHandlers }: Api): void {
  app.addContentTypeParser(contentTypes, { parseAs: 'buffer', bodyLimit }, (_request, body, done) => done(null, body))
  /** One at a time: each check takes a process. */
  let checking: Promise<unknown> = Promise.resolve()

  app.put(
    '/handlers',
    {
      bodyLimit,
      schema: {
        operationId: 'deployHandlers',
        summary: 'Replace the handlers of the deployment; nothing is restarted',
        tags: ['fleet'],
        response: {
          200: Type.Object(
            {
              digest: Type.String({ description: 'SHA-256 of the module, in hex' }),
              types: Type.Array(Type.String(), { description: 'All types, the built-in ones too' }),
            },
            { description: 'They are in force: every node and worker hears of them within seconds' },
          ),
          ...problems('handlers_invalid', 'body_too_large', 'content_type_missing', 'content_type_unsupported'),
        },
      },
    },
    async request => {
      const body = request.body as Buffer | undefined | null
      if (body === undefined || body === null || body.length === 0)
        throw new Problem('handlers_invalid', 'The request has no body.')
      const check = checking.then(async () => {
        const bundle = await bundleText(body, name)
        return { bundle, types: await checkHandlers(bundle, name) }
      })
      checking = check.catch(() => undefined)
      const { bundle, types } = await check.catch((error: unknown) => {
        if (!(error instanceof StartupError)) throw error
        throw new Problem('handlers_invalid', error.message.slice(0, maxFaultLength), { cause: error })
      })
      request.audited = { target: bundle.digest, details: { types: types.map(({ type }) => type).slice(0, 100) } }
      await handlers.deploy(bundle, types)
      return { digest: bundle.digest, types: types.map(({ type }) => type) }
    },
  )
}

/** GET /types: what may be submitted here, and what each type takes. */
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
