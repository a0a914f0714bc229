/**
 * Processes by the folder in which they run. Every process of a run has its working folder below the folder of its host:
 * so all of them are found, also those that were started by others and whose parent is gone.
 */
import { readdir, readFile, readlink } from 'node:fs/promises'
import { waitFor } from './wait-for.ts'

export interface FoundProcess {
  readonly pid: number
  readonly command: string
}

/** All that runs in this folder or below it. */
export async function processesUnder(folder: string): Promise<FoundProcess[]> {
  const found: FoundProcess[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue
    const cwd = (await readlink(`/proc/${entry}/cwd`).catch(() => '')).replace(/ \(deleted\)$/, '')
    if (cwd !== folder && !cwd.startsWith(`${folder}/`)) continue
    const command = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')
    // A zombie has no command: it is dead, only its parent has not looked yet.
    if (command !== '') found.push({ pid: Number(entry), command: command.replaceAll('\0', ' ').trim() })
  }
  return found
}

/** False when it is gone already. */
export function signalProcess(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}

/**
 * SIGKILL, again and again until nothing is left: what is killed may just have started something.
 * @throws Error when something is left after 10 s
 */
export async function killAllUnder(folder: string): Promise<void> {
  const gone = await waitFor(
    async () => {
      const left = await processesUnder(folder)
      for (const { pid } of left) signalProcess(pid, 'SIGKILL')
      return left.length === 0 ? true : undefined
    },
    10_000,
    { everyMs: 20 },
  )
  if (gone === undefined) throw new Error(`processes in ${folder} cannot be killed`)
}

/** When a process started, in ticks since the boot of the machine: with its id it names the process for good. */
export async function startTicksOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
}
