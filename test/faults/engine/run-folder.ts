/**
 * The folder of one run: all that its processes write, and who owns it. Its name is random, so runs do not collide; what a run
 * that was killed left behind is found by its name and removed by the next one.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { killAllUnder, startTicksOf } from './process-table.ts'

/** Of folders and namespaces alike. */
export const runPrefix = 'muster-faults-'

export interface RunFolder {
  /** Like muster-faults-3f9c2a: also the beginning of the names of its namespaces. */
  readonly name: string
  readonly path: string
}

export async function makeRunFolder(): Promise<RunFolder> {
  const name = `${runPrefix}${randomBytes(4).toString('hex')}`
  const path = join(tmpdir(), name)
  await mkdir(join(path, 'hosts'), { recursive: true })
  await writeFile(join(path, 'owner'), await ownerText())
  return { name, path }
}

/** The folder of a host: its processes run in it and below. */
export const hostFolder = (run: RunFolder, host: string): string => join(run.path, 'hosts', host)

/** Keeps the logs under another name, where no later run takes them away. @returns where they are */
export async function keepRunFolder(run: RunFolder): Promise<string> {
  const kept = join(tmpdir(), `kept-${run.name}`)
  await rename(run.path, kept)
  return kept
}

/**
 * Ends and removes what runs whose owner is gone left behind.
 * @param removeNamespaces of the run with this name
 */
export async function removeStaleRuns(removeNamespaces: (runName: string) => Promise<void>): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(runPrefix)) continue
    const path = join(tmpdir(), name)
    const owner = await readFile(join(path, 'owner'), 'utf8').catch(() => undefined)
    // Without an owner: another run makes its folder just now.
    if (owner === undefined || (await isAlive(owner))) continue
    await killAllUnder(path)
    await removeNamespaces(name)
    await rm(path, { recursive: true, force: true })
  }
}

const ownerText = async (): Promise<string> => `${process.pid} ${await startTicksOf(process.pid)}`

async function isAlive(owner: string): Promise<boolean> {
  const [pid, ticks] = owner.split(' ')
  return ticks !== undefined && (await startTicksOf(Number(pid))) === ticks
}
