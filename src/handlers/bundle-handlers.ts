/**
 * Makes one module of a user's handlers: JavaScript (ESM or CommonJS) or TypeScript, with all that it imports, its own
 * files and npm packages. The same files give the same bytes, wherever they lie, so that the digest names the version.
 */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { isBuiltin } from 'node:module'
import { basename, dirname, resolve } from 'node:path'
import { promisify } from 'node:util'
import type { Message, Plugin } from 'esbuild'
import { StartupError } from '../errors.ts'
import { musterModuleText, musterNames } from './muster-module.ts'

export interface HandlersBundle {
  readonly code: Buffer
  /** SHA-256 of the code, in hex. */
  readonly digest: string
}

/** The head of a module that was bundled: it is taken as it is, on machines without esbuild too. */
const mark = '// handlers bundled by Muster'

/** What CommonJS packages expect to find. Their names are replaced where they are not declared: see `define`. */
const banner = `${mark}
import { createRequire as musterRequire } from 'node:module'
import { dirname as musterDirname } from 'node:path'
import { fileURLToPath as musterPath } from 'node:url'
const require = musterRequire(import.meta.url), musterFile = musterPath(import.meta.url), musterFolder = musterDirname(musterFile)
`

const oneMuster: Plugin = {
  name: 'muster',
  setup({ onResolve, onLoad }) {
    const filter = new RegExp(`^(${musterNames.join('|')})$`)
    onResolve({ filter }, ({ path }) => ({ path, namespace: 'muster' }))
    onLoad({ filter: /.*/, namespace: 'muster' }, () => ({ contents: musterModuleText }))
  },
}

const noAddons: Plugin = {
  name: 'no-addons',
  setup({ onResolve }) {
    onResolve({ filter: /\.node$/ }, ({ path }) => ({
      errors: [{ text: `"${path}" is a native addon, which does not travel to workers. Use a package without one.` }],
    }))
  },
}

/** Whoever sends a text would else read files of this machine with it. */
const noFiles: Plugin = {
  name: 'no-files',
  setup({ onResolve }) {
    onResolve({ filter: /.*/ }, ({ path, kind }) =>
      kind === 'entry-point' || isBuiltin(path)
        ? undefined
        : {
            errors: [
              {
                text: `"${path}" cannot be imported by a file that comes alone. "muster handlers deploy" bundles it first.`,
              },
            ],
          },
    )
  },
}

/** False in the code of a worker that a node serves. */
export function canBundle(): boolean {
  try {
    return import.meta.resolve('esbuild') !== ''
  } catch {
    return false
  }
}

/** @throws StartupError that names the file, the place in it and what is wrong there */
export async function bundleHandlers(file: string): Promise<HandlersBundle> {
  const path = resolve(file)
  const found = await stat(path).catch(() => undefined)
  if (found?.isFile() !== true) {
    const fault = found === undefined ? 'there is no such file' : 'this is not a file'
    throw new StartupError(`${path}: ${fault}. Name the JavaScript or TypeScript file that exports your handlers.`)
  }
  const text = await readFile(path)
  return toBundle(isBundled(text) ? text : await build(path))
}

/**
 * Likewise, of a text that came from elsewhere: it may import nothing that lies on this machine.
 * @param name to be named in what goes wrong
 */
export async function bundleText(text: Buffer, name: string): Promise<HandlersBundle> {
  return toBundle(isBundled(text) ? text : await build(resolve('/', name), text.toString()))
}

const isBundled = (text: Buffer): boolean => text.subarray(0, mark.length).toString() === mark

const toBundle = (code: Buffer): HandlersBundle => ({ code, digest: createHash('sha256').update(code).digest('hex') })

/** @param text in place of what is in the file */
async function build(path: string, text?: string): Promise<Buffer> {
  const esbuild = await import('esbuild').catch((error: Error) => {
    throw new StartupError(
      `${path}: cannot be bundled here, since esbuild is missing. Bundle it where it is, with "muster handlers bundle", and name the bundle.`,
      { cause: error },
    )
  })
  const folder = dirname(path)
  try {
    const { outputFiles } = await esbuild.build({
      absWorkingDir: folder,
      ...(text === undefined
        ? { entryPoints: [path] }
        : { stdin: { contents: text, sourcefile: basename(path), loader: 'ts' as const } }),
      outfile: resolve(folder, `${basename(path)}.bundle.mjs`),
      write: false,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node20.19',
      sourcemap: 'inline',
      sourcesContent: false,
      legalComments: 'none',
      logLevel: 'silent',
      keepNames: true,
      loader: { '.txt': 'text', '.wasm': 'binary' },
      define: { __filename: 'musterFile', __dirname: 'musterFolder' },
      banner: { js: banner },
      plugins: [oneMuster, noAddons, ...(text === undefined ? [] : [noFiles])],
    })
    return Buffer.from((outputFiles[0] as { contents: Uint8Array }).contents)
  } catch (error) {
    const { errors } = error as { errors?: Message[] }
    if (errors === undefined) throw error
    throw new StartupError(
      `${path}: cannot be bundled.\n${errors.map(fault => `  - ${place(fault, folder)}`).join('\n')}`,
      {
        cause: error,
      },
    )
  }
}

function place({ text, location }: Message, folder: string): string {
  if (location === null) return text
  return `${resolve(folder, location.file)}:${location.line}:${location.column + 1}: ${text}`
}

/** Where a file cannot be parsed: the SyntaxError of an import does not say; Node's own check of the file does. */
const checkWithinMs = 10_000

/** @returns `file:line` and the line, ending in a line break; empty when the file itself can be parsed */
export async function syntaxPlace(path: string): Promise<string> {
  try {
    await promisify(execFile)(process.execPath, ['--check', path], { timeout: checkWithinMs, env: {} })
    return ''
  } catch (error) {
    const told = String((error as { stderr?: unknown }).stderr ?? '')
    const end = told.search(/^\w*Error: /m)
    return end > 0 ? `${told.slice(0, end).trimEnd()}\n` : ''
  }
}
