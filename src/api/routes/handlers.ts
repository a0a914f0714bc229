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
