/**
 * The code of a worker as one archive, for instances that have none: what `muster worker` imports of this very build, and
 * the packages that it needs. Made at the first request, then kept.
 */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, extname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { create } from 'tar'

/** Where package.json, dist and node_modules are. */
const root = fileURLToPath(new URL('../../', import.meta.url))
/** Everything that a worker runs is reached from these; a node's parts are imported by none of them statically. */
const entries = [
  'dist/cli.js',
  'dist/worker/run-worker.js',
  'dist/worker/slot-main.js',
  'dist/worker/slot-watchdog.js',
  'dist/index.js',
]

let made: Promise<Buffer> | undefined

/**
 * A tar.gz of dist (what of it a worker needs), node_modules (likewise) and package.json.
 * @param handlers a file of the user's, which becomes handlers.js (or .mjs); '' for none. What it imports must be in the image
 */
export function workerBundle(handlers: string): Promise<Buffer> {
  made ??= makeBundle(handlers).catch(error => {
    made = undefined
    throw error
  })
  return made
}

async function makeBundle(handlers: string): Promise<Buffer> {
  const { files, packages } = await follow(entries)
  const folders = packageFolders(packages)
  const archive = create(
    {
      cwd: root,
      gzip: true,
      portable: true,
      preservePaths: true,
      onWriteEntry: entry => {
        if (entry.path === handlers) entry.path = `handlers${extname(handlers) === '.mjs' ? '.mjs' : '.js'}`
      },
    },
    ['package.json', ...files, ...folders, ...(handlers === '' ? [] : [handlers])],
  )
  const chunks: Buffer[] = []
  for await (const chunk of archive as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** The built files that are imported, directly or not, and the packages that they name. */
async function follow(from: readonly string[]): Promise<{ files: string[]; packages: string[] }> {
  const files = new Set<string>()
  const packages = new Set<string>()
  const waiting = from.filter(file => existsSync(join(root, file)))
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (files.has(file)) continue
    files.add(file)
    const text = await readFile(join(root, file), 'utf8')
    for (const target of importsOf(text, file)) {
      if (target.startsWith('.')) waiting.push(relative(root, join(root, dirname(file), target)))
      else if (!target.startsWith('node:')) packages.add(packageOf(target))
    }
  }
  return { files: [...files].sort(), packages: [...packages].sort() }
}

/** cli.js imports the parts of a node only when it is to be one: that import is not followed. */
const importsOf = (text: string, file: string): string[] =>
  [...text.matchAll(file.endsWith('cli.js') ? /\bfrom\s*'([^']+)'/g : /(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g)]
    .map(match => match[1] as string)
    .filter(target => target !== 'muster')

const packageOf = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')

/** The folders of packages and of all that they depend on, relative to the root. */
function packageFolders(names: readonly string[]): string[] {
  const folders = new Set<string>()
  const waiting = names.map(name => ({ name, from: root }))
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const folder = findPackage(next.name, next.from)
    if (folder === undefined || folders.has(relative(root, folder))) continue
    folders.add(relative(root, folder))
    const { dependencies = {} } = createRequire(join(folder, 'package.json'))('./package.json') as {
      dependencies?: object
    }
    waiting.push(...Object.keys(dependencies).map(name => ({ name, from: folder })))
  }
  return [...folders].sort()
}

/** As Node looks for it: in node_modules here, then further up. Optional ones may be absent. */
function findPackage(name: string, from: string): string | undefined {
  for (let folder = from; folder.startsWith(root.replace(/\/$/, '')); folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name)
    if (existsSync(join(candidate, 'package.json'))) return candidate
  }
  return undefined
}
