/** The OpenAPI document, made from the schemas of the routes, and its page at /docs (all of it served from here). */
import swagger from '@fastify/swagger'
import scalar from '@scalar/fastify-api-reference'
import type { FastifyInstance } from 'fastify'
import { version } from '../../version.ts'

const description = `Muster is a job server that musters its own workers. Put work in with PUT /enqueue, pull results with
POST /pullCompleted; everything else is here to look, steer and mend. Errors are RFC 9457 problems with a stable \`code\`.`

export async function addOpenapi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Muster', version, description, license: { name: 'MIT', identifier: 'MIT' } },
      servers: [{ url: '/', description: 'this node' }],
      tags: [
        { name: 'work', description: 'Submit jobs and collect their results' },
        { name: 'jobs', description: 'Look at jobs, cancel and retry them' },
        { name: 'queues', description: 'Pause, drain and resume queues' },
        { name: 'fleet', description: 'Workers, instances and why there are so many' },
        { name: 'workers', description: 'The wire protocol of workers, in words: docs/worker-protocol.md' },
        { name: 'node', description: 'The node itself' },
      ],
    },
  })
}

/** Serves the page; call it after the routes. */
export async function addDocsPage(app: FastifyInstance): Promise<void> {
  await app.register(scalar, {
    routePrefix: '/docs',
    configuration: {
      title: 'Muster API',
      withDefaultFonts: false,
      telemetry: false,
      agent: { disabled: true },
    } as never,
  })
}
