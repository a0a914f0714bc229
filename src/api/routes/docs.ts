/** /docs: the page of the API, its document, and our own documents as pages. Nothing here is of this node alone. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Type } from 'typebox'
import { stringify } from 'yaml'
import { Problem } from '../../errors.ts'
import { version } from '../../version.ts'
import type { App } from '../api.ts'
import { Asset } from '../docs/asset.ts'
import { apiPage, apiScript, documentPage, errorsHtml } from '../docs/docs-page.ts'

const hidden = { schema: { hide: true } as object }

/** Call it after all other routes: the document is made of them. */
export function addDocs(app: App): void {
  const document = (): object => (app as unknown as { swagger(): object }).swagger()
  const assets: Readonly<Record<string, Asset>> = {
    '/docs/js/scalar.js': new Asset(apiScript),
    '/docs/openapi.json': new Asset(() => ({ type: 'application/json', body: JSON.stringify(document()) })),
    '/docs/openapi.yaml': new Asset(() => ({ type: 'application/yaml', body: stringify(document()) })),
    '/docs/errors': new Asset(errorsHtml),
  }
  for (const [path, asset] of Object.entries(assets))
    app.get(path, hidden, async (request, reply) => (await asset.send(request as never, reply as never)) as never)

  const page = new Asset(apiPage)
  app.get('/docs', hidden, async (request, reply) => {
    // The page names its script relative to itself.
    if (!new URL(request.url, 'http://node').pathname.endsWith('/')) return reply.redirect('docs/', 301) as never
    return (await page.send(request as never, reply as never)) as never
  })

  const documents = new Map<string, Asset>()
  app.get('/docs/:page', hidden, async (request, reply) => {
    const { page: name } = request.params as { page: string }
    const isOurs = /^[a-z-]{1,40}$/.test(name)
    const file = fileURLToPath(new URL(`../../../docs/${name}.md`, import.meta.url))
    if (!isOurs || !existsSync(file))
      throw new Problem('route_not_found', `There is no document "${name.slice(0, 40)}".`)
    const asset = documents.get(name) ?? new Asset(() => documentPage(name, file))
    documents.set(name, asset)
    return (await asset.send(request as never, reply as never)) as never
  })
}

/** GET /: where everything is. A browser goes on to the documentation. */
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
