/** A bundle of handlers as a file that slots can load, under the name of its version. */
import { rmSync } from 'node:fs'
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { StartupError } from '../../errors.ts'
import type { HandlersBundle } from '../../handlers/bundle-handlers.ts'
import { ownerName } from '../../marked-processes.ts'
import type { HandlerDescription } from '../protocol/slot-protocol.ts'
import { Slot } from './slot.ts'
import type { ProcessUser } from './slot-process.ts'

export interface BundleFile {
  readonly path: string
  remove(): Promise<void>
}

/** Their names go on with that of the process that made them. */
export const bundleFolders = 'muster-handlers-'

/** Those that this process has made and not yet removed. */
const folders = new Set<string>()
process.once('exit', () => {
  for (const folder of folders) removeNow(folder)
})

/** Never throws. */
function removeNow(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true })
  } catch {
    // It stays, until another worker or node starts here.
  }
}

/** @param user the user that reads it; undefined: the user of this process */
export async function writeBundle({ code, digest }: HandlersBundle, user?: ProcessUser): Promise<BundleFile> {
  const folder = await mkdtemp(join(tmpdir(), `${bundleFolders}${ownerName()}-`))
  folders.add(folder)
  const remove = async (): Promise<void> => {
    await rm(folder, { recursive: true, force: true })
    folders.delete(folder)
  }
  const path = join(folder, `${digest}.mjs`)
  try {
    await writeFile(path, code)
    if (user !== undefined) await chown(folder, user.uid, user.gid)
  } catch (error) {
    await remove()
    throw error
  }
  return { path, remove }
}

/**
 * Loads a bundle in a process of its own, with a time limit.
 * @param source the file that it was made from, named in errors
 * @param user the user that loads it; undefined: the user of this process
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

/**
 * Learns which types there are, and the schemas of their payloads, by loading the handlers in a process of their own.
 */
const heapMb = 256

/**
 * @param file a user's handlers; undefined: only the built-in ones
 * @param passEnv variables that they may see besides the harmless ones
 * @param user the user that loads them; undefined: the user of this process
 * @throws StartupError when they cannot be loaded
 */
export async function describeHandlers(
  file: string | undefined,
  passEnv: readonly string[] = [],
  user?: ProcessUser,
): Promise<HandlerDescription[]> {
  let onDeath: () => void = () => undefined
  const died = new Promise<void>(resolve => {
    onDeath = resolve
  })
  const nothing = (): void => undefined
  const events = { onOutcome: nothing, onChange: nothing, onUnstarted: nothing, onDeath }
  const attemptEvents = { onUpdate: nothing, onCheckpoint: nothing }
  const handlersFile = file === '' ? undefined : file
  const slot = new Slot({
    handlersFile,
    heapMb,
    maxBodyBytes: 0,
    passEnv,
    ...(user && { user }),
    attemptEvents,
    events,
  })
  try {
    return await slot.ready
  } finally {
    slot.kill()
    await died
  }
}
