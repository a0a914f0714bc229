/**
 * One node a data directory: a lock file that names its holder. A holder in the same process space holds it while that
 * process lives; one from elsewhere (another container or machine, on a shared volume) while it renews the file. The
 * lock of a dead holder is taken over.
 */
import { randomUUID } from 'node:crypto'
import { link, open, rename, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { StartupError } from '../errors.ts'
import { processIdentity, processSpace } from '../process-identity.ts'

interface Holder {
  readonly pid: number
  readonly start: string | undefined
  readonly space: string
  readonly token: string
}

interface Look {
  readonly text: string
  readonly renewedMs: number
}

export interface DataDirLock {
  /** Releases the directory; does nothing when the lock is no longer ours. */
  release(): Promise<void>
}

const renewEveryMs = 1000
/** How long a holder that cannot be looked at is watched for a sign of life. */
const watchForMs = 5000
/** A lock that was last renewed this long ago needs no watching, even with clocks that differ a little. */
const deadAfterMs = 60_000

/**
 * Takes the lock of an existing directory.
 * @throws StartupError when another node holds it
 */
export async function lockDataDir(dataDir: string): Promise<DataDirLock> {
  const file = join(dataDir, 'node.lock')
  const space = await processSpace()
  const holder: Holder = { pid: process.pid, start: startOf(process.pid), space, token: randomUUID() }
  const text = JSON.stringify(holder)
  const mine = `${file}.${holder.token}`
  await writeFile(mine, text, { mode: 0o600 })
  try {
    await take(file, mine, dataDir, space)
  } finally {
    await rm(mine, { force: true })
  }
  const timer = setInterval(() => void renew(file), renewEveryMs).unref()
  return {
    async release() {
      clearInterval(timer)
      if ((await look(file))?.text === text) await rm(file, { force: true })
    },
  }
}

async function take(file: string, mine: string, dataDir: string, space: string): Promise<void> {
  for (let attempt = 0; attempt < 20; attempt++) {
    // link() is the one call that creates the file with its content, or fails because another has it.
    if (await linkNew(mine, file)) return confirm(file, mine, dataDir, attempt > 0)
    const held = await look(file)
    if (held === undefined) continue
    if (await isAlive(held, file, space)) throw inUse(dataDir, parse(held.text)?.pid)
    const aside = `${mine}.stale`
    if (!(await succeeds(rename(file, aside)))) continue
    // Another contender may have taken the stale lock over since we read it: then this is its lock, and goes back.
    if ((await look(aside))?.text !== held.text) await linkNew(aside, file)
    await rm(aside, { force: true })
  }
  throw inUse(dataDir, undefined)
}

/**
 * After a takeover: a third contender can slip in while a lock goes back. The contender that does not find its own lock
 * lost.
 */
async function confirm(file: string, mine: string, dataDir: string, contended: boolean): Promise<void> {
  if (!contended) return
  await delay(50)
  if ((await look(file))?.text !== (await look(mine))?.text) throw inUse(dataDir, undefined)
}

async function isAlive(held: Look, file: string, space: string): Promise<boolean> {
  const holder = parse(held.text)
  if (holder === undefined) return false
  if (holder.space === space) return holder.start !== undefined && holder.start === startOf(holder.pid)
  if (Date.now() - held.renewedMs > deadAfterMs) return false
  await delay(watchForMs)
  const again = await look(file)
  return again !== undefined && (again.text !== held.text || again.renewedMs !== held.renewedMs)
}

/** Without the boot, which `space` has: the form that earlier versions read. */
const startOf = (pid: number): string | undefined => processIdentity(pid)?.replace(/^[0-9a-f-]{36}:/, '')

const renew = (file: string): Promise<void> => utimes(file, new Date(), new Date()).catch(() => undefined)

/** Content and time of one and the same file, though another may take its place at any moment. */
async function look(path: string): Promise<Look | undefined> {
  const file = await open(path, 'r').catch(() => undefined)
  if (file === undefined) return undefined
  try {
    return { text: await file.readFile('utf8'), renewedMs: (await file.stat()).mtimeMs }
  } finally {
    await file.close()
  }
}

/** False when `to` exists already. */
const linkNew = (from: string, to: string): Promise<boolean> =>
  link(from, to).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false
      throw new StartupError(`The data directory cannot be locked: ${error.message}. Use a local disk.`, {
        cause: error,
      })
    },
  )

const succeeds = (action: Promise<unknown>): Promise<boolean> =>
  action.then(
    () => true,
    () => false,
  )

function parse(text: string): Holder | undefined {
  try {
    return JSON.parse(text) as Holder
  } catch {
    return undefined
  }
}

const inUse = (dataDir: string, pid: number | undefined): StartupError =>
  new StartupError(
    `Another node${pid === undefined ? '' : ` (process ${pid})`} already uses the data directory ${dataDir}. ` +
      'Stop it, or give this one a directory of its own with MUSTER_DATA_DIR.',
  )
