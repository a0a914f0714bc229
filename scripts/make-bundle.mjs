/**
 * Packs what nodes, the witness and workers run into one archive: make-bundle.mjs FILE. Prints its SHA-256 and the version.
 * Everything in it is JavaScript, so one bundle serves arm64 and x86-64. The same build gives the same bytes, and so the same
 * hash: a deployment without a change replaces no machine.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { create } from 'tar'

const root = fileURLToPath(new URL('../', import.meta.url))
const [target] = process.argv.slice(2)
if (target === undefined) fail('say where to write it: make-bundle.mjs FILE')
if (!existsSync(join(root, 'dist/cli.js'))) fail('dist/ is missing: run "npm run build" first')

const top = ['LICENSE', 'README.md', 'package.json'].filter(name => existsSync(join(root, name)))
const files = [...top, ...['deploy', 'dist', 'docs', 'openapi'].flatMap(listFiles), ...packages().flatMap(listPackage)]
  // Marks of the local build; and the types and maps that only people at work on the code need.
  .filter(file => !/(^|\/)\.[^/]*$|\.d\.[cm]?ts$|\.map$/.test(file))
  .sort()
const chunks = []
const archive = create(
  { cwd: root, gzip: { level: 9 }, portable: true, mtime: new Date('2000-01-01T00:00:00Z') },
  files,
)
for await (const chunk of archive) chunks.push(chunk)
const bundle = Buffer.concat(chunks)
// The operating system that it was packed on is the one thing in the header that differs.
bundle[9] = 255
writeFileSync(target, bundle)
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
process.stdout.write(`${createHash('sha256').update(bundle).digest('hex')} ${version}\n`)

/** The folders of the packages that are needed to run, as package-lock.json has them: none for development or one platform. */
function packages() {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  const wanted = Object.entries(lock.packages).filter(
    ([folder, { dev, devOptional, os, cpu, link }]) =>
      folder !== '' && !dev && !devOptional && !link && os === undefined && cpu === undefined,
  )
  return wanted.flatMap(([folder, { optional, version }]) => {
    const file = join(root, folder, 'package.json')
    if (!existsSync(file)) return optional ? [] : fail(`${folder} is not installed: run "npm ci" first`)
    const installed = JSON.parse(readFileSync(file, 'utf8')).version
    if (installed !== version) fail(`${folder} is ${installed}, not ${version}: run "npm ci" first`)
    return [folder]
  })
}

/** Without the packages inside: those have entries of their own. */
function listPackage(folder) {
  return listFiles(folder).filter(file => !file.slice(folder.length).includes('/node_modules/'))
}

function listFiles(folder) {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath ?? entry.path, entry.name).slice(join(root, '/').length))
    .filter(file => dirname(file) !== '.')
}

function fail(why) {
  process.stderr.write(`The bundle cannot be made: ${why}\n`)
  process.exit(1)
}
