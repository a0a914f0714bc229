/** GET /: where everything is. A browser goes on to the documentation. */
import { Type } from 'typebox'
import { version } from '../../version.ts'
import type { App } from '../api.ts'

const links = {
  docs: '/docs',
  openapi: '/docs/openapi.json',
  types: '/types',
  status: '/status',
  health: '/health/ready',
} as const

export function addEntrance(app: App): void {
  app.get(
    '/',
    {
      schema: {
        operationId: 'entrance',
        summary: 'Where everything is',
        description: 'A browser is sent on to /docs.',
        tags: ['node'],
        response: {
          200: Type.Object({
            name: Type.String(),
            version: Type.String(),
            links: Type.Record(Type.String(), Type.String()),
          }),
        },
      },
    },
    async ({ headers }, reply) => {
      void reply.header('vary', 'Accept')
      if (/\btext\/html\b/i.test(headers.accept ?? '')) return await reply.redirect(links.docs, 302)
      return { name: 'muster', version, links }
    },
  )
}
