/** GET /workers/handlers: the handlers of the deployment as one module, for workers. */
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

export function addWorkerHandlers(app: App, { handlers }: Api): void {
  app.get(
    '/workers/handlers',
    {
      schema: {
        operationId: 'workerHandlers',
        summary: "The deployment's own handlers, bundled into one JavaScript module",
        tags: ['workers'],
        response: {
          200: {
            description: 'The module. The header Muster-Digest has its SHA-256, in hex',
            content: { 'text/javascript': { schema: {} } },
          },
          204: Type.Null({ description: 'There are none but the built-in ones' }),
          ...problems(),
        },
      },
    },
    async (_request, reply) => {
      const answer = reply as unknown as FastifyReply
      const { current } = handlers
      if (current === undefined) return (await answer.code(204).send()) as never
      return (await answer.header('Muster-Digest', current.digest).type('text/javascript').send(current.code)) as never
    },
  )
}
