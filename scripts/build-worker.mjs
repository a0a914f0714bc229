/**
 * Packs the code of a worker, after tsc: dist/worker-bundle.tgz, which nodes serve as /workers/bundle.tgz. All that a worker
 * imports is in a few files, so that it needs no node_modules and starts fast. The same build gives the same bytes.
 */
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { create } from 'tar'

const root = fileURLToPath(new URL('../', import.meta.url))
const target = join(root, 'dist/worker-bundle.tgz')
const folder = mkdtempSync(join(root, 'dist/.worker-'))

/** `muster` has other commands, which a worker has no code for: they say so. */
const worksOnly = {
  name: 'works-only',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^\./ }, ({ path, kind, importer }) =>
      kind === 'dynamic-import' && importer.endsWith('/dist/cli/main.js') && path !== '../worker/agent/run-worker.js'
        ? { path, namespace: 'absent' }
        : undefined,
    )
    onLoad({ filter: /.*/, namespace: 'absent' }, () => ({
      contents: `throw Object.assign(new Error('this bundle holds only "muster worker"; the other commands need the whole package'), { stack: undefined })`,
    }))
  },
}

const { name, version, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

/** The version is text here: package.json lies elsewhere than where a built file looks for it. */
const fixedVersion = {
  name: 'fixed-version',
  setup({ onLoad }) {
    onLoad({ filter: /\/dist\/version\.js$/ }, () => ({
      contents: `export const packageName = ${JSON.stringify(name)}; export const version = ${JSON.stringify(version)}`,
    }))
  },
}

try {
  await build({
    absWorkingDir: root,
    entryPoints: {
      cli: 'dist/cli.js',
      'worker/child/slot-main': 'dist/worker/child/slot-main.js',
      'worker/child/slot-watchdog': 'dist/worker/child/slot-watchdog.js',
    },
    outdir: join(folder, 'dist'),
    bundle: true,
    splitting: true,
    // As deep as src/worker/slots: the agent finds the code of a slot by import.meta.url.
    chunkNames: 'worker/slots/part-[hash]',
    platform: 'node',
    format: 'esm',
    target: 'node20.19',
    minifySyntax: true,
    minifyWhitespace: true,
    // It bundles handlers, which a worker takes from a node.
    external: ['esbuild'],
    legalComments: 'none',
    logLevel: 'warning',
    plugins: [worksOnly, fixedVersion],
    banner: {
      js: `import { createRequire as musterRequire } from 'node:module'; const require = musterRequire(import.meta.url);`,
    },
  })
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name, version, license, type: 'module', private: true }))
  const archive = create({ cwd: folder, gzip: { level: 9 }, portable: true, mtime: new Date('2000-01-01T00:00:00Z') }, [
    'package.json',
    'dist',
  ])
  const chunks = []
  for await (const chunk of archive) chunks.push(chunk)
  const bundle = Buffer.concat(chunks)
  // The operating system that it was packed on is the one thing in the header that differs.
  bundle[9] = 255
  writeFileSync(target, bundle)
  writeFileSync(`${target}.sha256`, `${createHash('sha256').update(bundle).digest('hex')}\n`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
