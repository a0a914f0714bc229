/** The OpenAPI document, made from the schemas of the routes; its page is routes/docs.ts. */

import swagger from '@fastify/swagger'
import { version } from '../../version.ts'
import type { App } from '../api.ts'
import { documentOperations } from '../docs/operation-docs.ts'
import { enqueueRequestBody } from '../routes/enqueue.ts'
import { ProblemBody } from '../schemas.ts'

const description = `Muster is a job server that musters its own workers. Put work in with PUT /enqueue, pull results with
POST /pullCompleted; the other calls inspect, control and repair. Errors are RFC 9457 problems with a stable \`code\`.`

/** Bodies that are read as streams: a schema on the route would make Fastify read and validate them. */
const streamedBodies: Readonly<Record<string, object>> = {
  '/enqueue': enqueueRequestBody,
  '/workers/results/{workId}': {
    description: 'The value, raw: its bytes, or its JSON text',
    required: true,
    content: { 'application/octet-stream': { schema: {} } },
  },
}

interface Documented {
  readonly paths?: Readonly<Record<string, { put?: { requestBody?: unknown } }>>
}

export async function addOpenapi(app: App): Promise<void> {
  app.addSchema(ProblemBody)
  await app.register(swagger, {
    // Components keep the names that they have here.
    refResolver: { buildLocalReference: (schema, _base, _fragment, index) => String(schema.$id ?? `schema-${index}`) },
    transformObject: document => {
      const { openapiObject } = document as unknown as { openapiObject: Documented }
      for (const [path, requestBody] of Object.entries(streamedBodies)) {
        const put = openapiObject.paths?.[path]?.put
        if (put !== undefined) put.requestBody = requestBody
      }
      documentOperations(openapiObject.paths ?? {})
      return openapiObject as never
    },
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
        { name: 'access', description: 'Keys, and what operators did' },
        { name: 'node', description: 'The node itself' },
      ],
      components: {
        securitySchemes: {
          bearer: {
            type: 'http',
            scheme: 'bearer',
            description:
              'An API key (muster_…), or the token of a worker. A call takes one of the roles that it names.',
          },
        },
      },
    },
  })
}
