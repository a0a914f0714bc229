/** A document as HTML: navigation, headings with anchors, previous and next. No script runs in it. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { posix } from 'node:path'
import { Marked } from 'marked'
import type { AssetContent } from './asset.ts'
import { docsFolder, pathOf, readSite, type SitePage } from './site.ts'

const style = `
:root{color-scheme:light dark;--line:light-dark(#d8dee4,#3d444d);--soft:light-dark(#f4f6f8,#1c2128);
--link:light-dark(#0757ba,#6cb6ff)}
*{box-sizing:border-box}
body{font:16px/1.6 system-ui,sans-serif;margin:0;background:light-dark(#fff,#0f1318);color:light-dark(#1f2328,#d8dee4)}
a{color:var(--link)}
body>header{padding:.7rem 1rem;border-bottom:1px solid var(--line);display:flex;flex-wrap:wrap;gap:0 1.2rem}
body>header a{padding:.3rem 0}
main{min-width:0;max-width:56rem;padding:0 1rem 2rem;overflow-wrap:break-word}
main>:is(h2,h3,h4){line-height:1.25;margin-top:2em}
:is(h2,h3,h4)>a{color:inherit;text-decoration:none}
:is(h2,h3,h4)>a:hover::after{content:" #"}
table{border-collapse:collapse;display:block;overflow-x:auto}
td,th{border:1px solid var(--line);padding:.35rem .6rem;text-align:left;vertical-align:top}
code,pre{font-family:ui-monospace,monospace;font-size:.88em}
code{background:var(--soft);padding:.1em .25em;border-radius:3px}
pre{overflow-x:auto;padding:.8rem;background:var(--soft);border:1px solid var(--line);border-radius:6px;line-height:1.4}
pre code{padding:0}
td code{overflow-wrap:normal}
#contents{padding:0 1rem 2rem;border-top:1px solid var(--line)}
#contents ul{list-style:none;margin:0;padding:0}
#contents a{display:block;padding:.3rem .5rem;text-decoration:none}
#contents p{margin:1rem .5rem .2rem;font-weight:600}
[aria-current]{background:var(--soft);font-weight:600}
.turn{display:flex;flex-wrap:wrap;justify-content:space-between;gap:1rem;margin-top:3rem}
@media(min-width:60rem){.site{display:grid;grid-template-columns:17rem 1fr}#contents{grid-area:1/1;border:0}main{grid-area:1/2}
.to-contents{display:none}}
`

export const sitePolicy = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

const escapeHtml = (text: string): string =>
  text.replace(/[&<>"]/g, char => `&${{ '&': 'amp', '<': 'lt', '>': 'gt' }[char] ?? 'quot'};`)

/** As GitHub makes them, so that one link leads to a heading there and here. */
export const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/<[^>]+>|[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(' ', '-')

/** Where a link of a document leads on a node; undefined: to a file that no node serves. */
function hrefOn(file: string, href: string): string | undefined {
  if (/^(?:[a-z]+:|#|\/)/i.test(href)) return href
  const [target = '', anchor] = href.split('#')
  const path = posix.join(posix.dirname(file), target)
  const hash = anchor === undefined ? '' : `#${anchor}`
  if (path === '../openapi/openapi.yaml') return `/docs/openapi.yaml${hash}`
  return path.startsWith('../') ? undefined : `${pathOf(path)}${hash}`
}

/** @param file below docs/: links are relative to it */
function markedFor(file: string): Marked {
  return new Marked({
    renderer: {
      heading({ tokens, depth, text }) {
        const inner = this.parser.parseInline(tokens)
        if (depth === 1) return `<h1>${inner}</h1>\n`
        const id = anchorOf(text.replace(/\[([^\]]+)\]\([^)]*\)/g, '$1').replaceAll('`', ''))
        const linked = inner.includes('<a ') ? inner : `<a href="#${id}">${inner}</a>`
        return `<h${depth} id="${id}">${linked}</h${depth}>\n`
      },
      link({ href, tokens }) {
        const inner = this.parser.parseInline(tokens)
        const to = hrefOn(file, href)
        return to === undefined ? inner : `<a href="${escapeHtml(to)}">${inner}</a>`
      },
    },
  })
}

function navigation(pages: readonly SitePage[], current: string): string {
  const sections = [...new Set(pages.map(({ section }) => section))]
  const link = ({ file, path, title }: SitePage): string =>
    `<li><a href="${path}"${file === current ? ' aria-current="page"' : ''}>${escapeHtml(title)}</a></li>`
  const lists = sections.map(
    name =>
      `<p>${escapeHtml(name)}</p><ul>${pages
        .filter(({ section }) => section === name)
        .map(link)
        .join('')}</ul>`,
  )
  return `<nav id="contents" aria-label="Contents">${lists.join('')}</nav>`
}

/** @param file `index.md`, or a page of the order; @param markdown its text, where it is made by the code */
export async function sitePage(file: string, markdown?: string): Promise<AssetContent> {
  const pages = readSite()
  const at = pages.findIndex(page => page.file === file)
  const text = markdown ?? (await readFile(`${docsFolder}${file}`, 'utf8'))
  const [previous, next] = [pages[at - 1], pages[at + 1]]
  const title = pages[at]?.title ?? 'Documentation'
  const turn = [
    previous === undefined
      ? '<span></span>'
      : `<a rel="prev" href="${previous.path}">← ${escapeHtml(previous.title)}</a>`,
    next === undefined ? '' : `<a rel="next" href="${next.path}">${escapeHtml(next.title)} →</a>`,
  ].join('')
  return {
    type: 'text/html; charset=utf-8',
    body: `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)} – Muster</title><style>${style}</style></head>
<body>
<header><a href="/docs"><strong>Muster</strong></a><a class="to-contents" href="#contents">Contents</a>
<a href="/docs/api">API reference</a></header>
<div class="site"><main>
${await markedFor(file).parse(text)}<p class="turn">${turn}</p></main>
${navigation(pages, file)}</div>
</body></html>
`,
    contentSecurityPolicy: sitePolicy,
  }
}
