/** GET /workers/bundle.tgz: the code of a worker, for an instance that has none. */
import type { FastifyReply } from 'fastify'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'
import { workerBundle } from '../worker-bundle.ts'

export function addWorkerBundle(app: App, { settings }: Api): void {
  app.get(
    '/workers/bundle.tgz',
    {
      schema: {
        operationId: 'workerBundle',
        summary: 'The code of a worker as one archive, of the same version as this node',
        tags: ['workers'],
        response: {
          200: {
            description: 'A tar.gz of dist, node_modules and package.json',
            content: { 'application/gzip': { schema: {} } },
          },
          ...problems(),
        },
      },
    },
    async (_request, reply) =>
      (await (reply as unknown as FastifyReply)
        .type('application/gzip')
        .send(await workerBundle(settings.handlers))) as never,
  )
}
