/** The order of the documents: docs/index.md, read once. Navigation and next links are made from it. */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export interface SitePage {
  /** Below docs/: `access.md`. */
  readonly file: string
  /** Below a node: `/docs/access`. */
  readonly path: string
  readonly title: string
  readonly section: string
}

export const docsFolder = fileURLToPath(new URL('../../../docs/', import.meta.url))

const entry = /^- \[([^\]]+)\]\(([^)]+\.md)\)/

/** `design/routing-by-type.md` → `/docs/design/routing-by-type` */
export const pathOf = (file: string): string => (file === 'index.md' ? '/docs' : `/docs/${file.replace(/\.md$/, '')}`)

/** @returns none where this installation has no documents */
export function readSite(folder = docsFolder): readonly SitePage[] {
  if (!existsSync(`${folder}index.md`)) return []
  let section = ''
  return readFileSync(`${folder}index.md`, 'utf8')
    .split('\n')
    .flatMap(line => {
      if (line.startsWith('## ')) section = line.slice(3)
      const [, title, file] = entry.exec(line) ?? []
      return title === undefined || file === undefined ? [] : [{ file, path: pathOf(file), title, section }]
    })
}
