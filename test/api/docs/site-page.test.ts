import { createHash } from 'node:crypto'
import t from 'tap'
import { readSite } from '../../../src/api/docs/site.ts'
import { anchorOf, sitePage } from '../../../src/api/docs/site-page.ts'
import { startTestApi } from '../../support/api.ts'

t.test('a page has navigation, previous and next, and headings with anchors', async t => {
  const html = String((await sitePage('payloads.md')).body)
  for (const { path } of readSite()) t.ok(html.includes(`href="${path}"`), path)
  t.match(html, '<a href="/docs/payloads" aria-current="page">')
  t.match(html, '<a rel="prev" href="/docs/use">')
  t.match(html, '<a rel="next" href="/docs/handlers">')
  t.match(html, '<h2 id="json-to-the-letter">')
})

t.test('no script, and a policy that allows its one style', async t => {
  const { body, contentSecurityPolicy = '' } = await sitePage('use.md')
  const [, style = ''] = /<style>([\s\S]*?)<\/style>/.exec(String(body)) ?? []
  t.match(contentSecurityPolicy, `style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'`)
  t.match(contentSecurityPolicy, "default-src 'none'")
  t.notMatch(String(body), /<script| style=| on[a-z]+="/)
})

t.test('anchors are those of GitHub', async t => {
  t.equal(anchorOf('What it does, when Redis breaks'), 'what-it-does-when-redis-breaks')
  t.equal(anchorOf('Exit codes of muster worker'), 'exit-codes-of-muster-worker')
})

t.test('paths of files are redirected, unknown pages are problems', async t => {
  const api = await startTestApi(t)
  const file = await fetch(`${api.url}/docs/access.md`, { redirect: 'manual' })
  t.equal(file.status, 301)
  t.equal(file.headers.get('location'), '/docs/access')
  const slash = await fetch(`${api.url}/docs/api/`, { redirect: 'manual' })
  t.equal(slash.headers.get('location'), '/docs/api')
  for (const path of [
    '/docs/nothing',
    '/docs/design/nothing',
    '/docs/nothing.md',
    '/docs/..%2fREADME',
    '/docs/..%2fREADME.md',
  ])
    t.match(await api.call('GET', path), { status: 404, body: { code: 'route_not_found' } }, path)
})
