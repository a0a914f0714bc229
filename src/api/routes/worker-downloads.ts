/** GET /workers/bundle.tgz: the code of a worker, for an instance that has none. */
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import { workerBundle } from '../../fleet/providers/worker-bundle.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

export function addWorkerBundle(app: App): void {
  app.get(
    '/workers/bundle.tgz',
    {
      schema: {
        operationId: 'workerBundle',
        summary: 'The code of a worker as one archive, of the same version as this node',
        tags: ['workers'],
        response: {
          200: {
            description: 'A tar.gz of dist and package.json. The header Repr-Digest has its SHA-256',
            content: { 'application/gzip': { schema: {} } },
          },
          ...problems(),
        },
      },
    },
    async (_request, reply) => {
      const { bytes, digest } = await workerBundle()
      return (await (reply as unknown as FastifyReply)
        .header('Repr-Digest', `sha-256=:${Buffer.from(digest, 'hex').toString('base64')}:`)
        .type('application/gzip')
        .send(bytes)) as never
    },
  )
}

/** GET /workers/handlers: the handlers of the deployment as one module, for workers. */
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
