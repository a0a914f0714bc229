/** The commands that the documents name: each line of a shell block, and each command in the midst of a sentence. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface DocumentedCommand {
  /** The document, from the root of the repository, and the line. */
  readonly where: string
  /** In one line, without a comment. */
  readonly text: string
}

const programs =
  /^(?:\w+=\S* )*(?:sudo )?(?:npm |npx |curl |aws |git |muster |redis-cli |node |\.\/scripts\/|\.\/setup\.sh|\.\/\.ci\/)/

/** All documents that tell people what to run. */
export function documents(root: string): string[] {
  const below = (folder: string): string[] =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter(name => name.endsWith('.md') && !name.includes('node_modules'))
      .map(name => join(folder, name))
  const inRoot = ['README.md', 'CONTRIBUTING.md']
  return [
    ...inRoot,
    ...['docs', 'bench', 'deploy', 'examples', 'test', 'clients'].filter(hasFolder(root)).flatMap(below),
  ].sort()
}

const hasFolder =
  (root: string) =>
  (folder: string): boolean =>
    readdirSync(root).includes(folder)

/** The commands of one document, in its order. */
export function commandsOf(root: string, document: string): DocumentedCommand[] {
  const found: DocumentedCommand[] = []
  let fence: string | undefined
  let begun = ''
  for (const [index, line] of readFileSync(join(root, document), 'utf8').split('\n').entries()) {
    const where = `${document}:${index + 1}`
    const mark = /^\s*```(\w*)/.exec(line)
    if (mark !== null) {
      fence = fence === undefined ? (mark[1] ?? '') : undefined
    } else if (fence === 'sh' || fence === 'bash') {
      const text = begun + withoutComment(line).trim()
      begun = text.endsWith('\\') ? `${text.slice(0, -1).trimEnd()} ` : ''
      if (begun === '' && text !== '') found.push({ where, text })
    } else if (fence === undefined) {
      for (const [, text = ''] of line.matchAll(/`([^`]+)`/g)) if (programs.test(text)) found.push({ where, text })
    }
  }
  return found
}

/** A `#` in the midst of a word, or of a quotation, is none. */
function withoutComment(line: string): string {
  let quote = ''
  for (const [index, char] of [...line].entries()) {
    if (quote !== '') quote = char === quote ? '' : quote
    else if (char === '"' || char === "'") quote = char
    else if (char === '#' && (index === 0 || line[index - 1] === ' ')) return line.slice(0, index)
  }
  return line
}
