/**
 * The code of a worker as one archive, for instances that have none. scripts/build-worker.mjs makes it with the build, so it
 * is of this very version, and the same on every node of it.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { StartupError } from '../../errors.ts'

export interface WorkerBundle {
  /** A tar.gz of dist and package.json; nothing else is needed but Node.js. */
  readonly bytes: Buffer
  /** SHA-256, in hex. */
  readonly digest: string
}

/** From the sources and from the built files alike. */
const file = new URL('../../../dist/worker-bundle.tgz', import.meta.url)

let read: Promise<WorkerBundle> | undefined

/**
 * Read once, then kept.
 * @throws StartupError when this Muster was not built
 */
export function workerBundle(): Promise<WorkerBundle> {
  read ??= readBundle().catch(error => {
    read = undefined
    throw error
  })
  return read
}

async function readBundle(): Promise<WorkerBundle> {
  const bytes = await readFile(file).catch((error: Error) => {
    throw new StartupError(`The code of the worker is missing (${error.message}): build with "npm run build".`, {
      cause: error,
    })
  })
  return { bytes, digest: createHash('sha256').update(bytes).digest('hex') }
}
