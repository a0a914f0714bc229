/**
 * /docs: the documents as a site, the API reference, and the OpenAPI document. They are the same on every node of a
 * version.
 */
import { Type } from 'typebox'
import { stringify } from 'yaml'
import { errorsPage, Problem } from '../../errors.ts'
import { settingsPage } from '../../settings/settings-page.ts'
import { version } from '../../version.ts'
import type { App } from '../api.ts'
import { apiPage, apiScript } from '../docs/api-reference.ts'
import { Asset } from '../docs/asset.ts'
import { pathOf, readSite } from '../docs/site.ts'
import { sitePage } from '../docs/site-page.ts'

const hidden = { schema: { hide: true } as object }

/** Pages that the code makes: they are right for this version even where docs/ is older. */
const generated: Readonly<Record<string, () => string>> = { 'errors.md': errorsPage, 'settings.md': settingsPage }

/** Call it after all other routes: the document is made of them. */
export function addDocs(app: App): void {
  const document = (): object => (app as unknown as { swagger(): object }).swagger()
  const site = readSite()
  const files = site.length === 0 ? [] : ['index.md', ...site.map(({ file }) => file)]
  const pages = files.map(file => [pathOf(file), new Asset(() => sitePage(file, generated[file]?.()))] as const)
  const assets: Readonly<Record<string, Asset>> = {
    '/docs/js/scalar.js': new Asset(apiScript),
    '/docs/openapi.json': new Asset(() => ({ type: 'application/json', body: JSON.stringify(document()) })),
    '/docs/openapi.yaml': new Asset(() => ({ type: 'application/yaml', body: stringify(document()) })),
    '/docs/api': new Asset(apiPage),
    ...Object.fromEntries(pages),
  }
  for (const [path, asset] of Object.entries(assets))
    app.get(path, hidden, async (request, reply) => {
      // The reference names its script relative to itself.
      if (new URL(request.url, 'http://node').pathname === '/docs/api/')
        return reply.redirect('/docs/api', 301) as never
      return (await asset.send(request as never, reply as never)) as never
    })

  if (files.length === 0) app.get('/docs', hidden, async (_request, reply) => reply.redirect('/docs/api', 302) as never)
  app.get('/docs/*', hidden, async (request, reply) => {
    const { '*': name } = request.params as { '*': string }
    const path = pathOf(name)
    // A link out of a copy of the files: /docs/access.md.
    if (name.endsWith('.md') && path in assets) return reply.redirect(path, 301) as never
    throw new Problem('route_not_found', `There is no document "${name.slice(0, 40)}".`)
  })
}

/** GET /: where everything is. A browser goes on to the documentation. */
const links = {
  docs: '/docs',
  api: '/docs/api',
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
