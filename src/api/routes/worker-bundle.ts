/** GET /workers/bundle.tgz: the code of a worker, for an instance that has none. */
import type { FastifyReply } from 'fastify'
import { workerBundle } from '../../fleet/worker-bundle.ts'
import type { App } from '../api.ts'
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
