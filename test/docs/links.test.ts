/** Every link leads somewhere: in the documents to a file and a heading, in the served site to a path and an anchor. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { readSite } from '../../src/api/docs/site.ts'
import { anchorOf } from '../../src/api/docs/site-page.ts'
import { startTestApi } from '../support/api.ts'
import { documents } from './documented-commands.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

const withoutCode = (text: string): string => text.replace(/^```[\s\S]*?^```/gm, '').replace(/`[^`\n]*`/g, '')

/** Headings and explicit anchors of a document. */
function anchorsOf(file: string): Set<string> {
  const text = readFileSync(file, 'utf8')
  const headings = [...text.replace(/^```[\s\S]*?^```/gm, '').matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    anchorOf(heading.replace(/\[([^\]]+)\]\([^)]*\)/g, '$1').replaceAll('`', '')),
  )
  return new Set([...headings, ...[...text.matchAll(/<a id="([^"]+)"/g)].map(([, id = '']) => id)])
}

t.test('links of documents lead to files and headings', async t => {
  let count = 0
  for (const document of [...documents(root), 'CHANGELOG.md']) {
    const file = join(root, document)
    for (const [, href = ''] of withoutCode(readFileSync(file, 'utf8')).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(href)) continue
      count++
      const [target = '', anchor] = href.split('#')
      const to = target === '' ? file : join(dirname(file), target)
      if (!existsSync(to)) t.fail(`${document}: there is no ${relative(root, to)}`)
      else if (anchor !== undefined && !anchorsOf(to).has(anchor))
        t.fail(`${document}: ${relative(root, to)} has no heading #${anchor}`)
    }
  }
  t.ok(count > 100, 'the documents are read')
})

t.test('docs/index.md has every document once', async t => {
  const files = readSite().map(({ file }) => `docs/${file}`)
  const there = documents(root).filter(document => document.startsWith('docs/') && document !== 'docs/index.md')
  t.strictSame([...files].sort(), there)
})

t.test('links of the served site lead to paths and anchors', async t => {
  const api = await startTestApi(t)
  const served = new Map<string, string>()
  const bodyOf = async (path: string): Promise<string> => {
    const known = served.get(path)
    if (known !== undefined) return known
    const reply = await api.call('GET', path)
    t.equal(reply.status, 200, path)
    const body = Buffer.isBuffer(reply.body) ? reply.body.toString() : String(reply.body)
    served.set(path, body)
    return body
  }
  for (const path of ['/docs', ...readSite().map(page => page.path)]) {
    const html = await bodyOf(path)
    for (const [, href = ''] of html.matchAll(/ href="([^"]+)"/g)) {
      if (/^https?:/.test(href)) continue
      const [target = '', anchor] = href.split('#')
      const body = await bodyOf(target === '' ? path : target)
      if (anchor !== undefined && !body.includes(` id="${anchor}"`)) t.fail(`${path}: ${href} leads nowhere`)
    }
    const ids = [...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id)
    t.equal(ids.length, new Set(ids).size, `${path}: each anchor is there once`)
  }
})
