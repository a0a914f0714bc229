/** A bundle of handlers as a file that slots can load, under the name of its version. */
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { StartupError } from '../errors.ts'
import type { HandlersBundle } from '../handlers/bundle-handlers.ts'
import { describeHandlers } from './describe-handlers.ts'
import type { ProcessUser } from './slot-process.ts'
import type { HandlerDescription } from './slot-protocol.ts'

export interface BundleFile {
  readonly path: string
  remove(): Promise<void>
}

/** @param user who is to read it; undefined: the user of this process */
export async function writeBundle({ code, digest }: HandlersBundle, user?: ProcessUser): Promise<BundleFile> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-handlers-'))
  const path = join(folder, `${digest}.mjs`)
  await writeFile(path, code)
  if (user !== undefined) await chown(folder, user.uid, user.gid)
  return { path, remove: async () => await rm(folder, { recursive: true, force: true }) }
}

/**
 * Loads a bundle in a process of its own, with a time limit.
 * @param source the file that it was made from, to be named in what goes wrong
 * @param user whom it is loaded as; undefined: the user of this process
 * @throws StartupError that names the source and the place in it
 */
export async function describeBundle(
  bundle: HandlersBundle,
  source: string,
  user?: ProcessUser,
): Promise<HandlerDescription[]> {
  const file = await writeBundle(bundle, user)
  try {
    return await describeHandlers(file.path, [], user)
  } catch (error) {
    if (!(error instanceof StartupError)) throw error
    const path = resolve(source)
    const message = error.message.replaceAll(file.path, path).replaceAll(dirname(file.path), dirname(path))
    throw new StartupError(message.includes(path) ? message : `${path}: ${message}`, { cause: error })
  } finally {
    await file.remove()
  }
}
