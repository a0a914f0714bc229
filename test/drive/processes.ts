/** Looks at processes by /proc: what runs under a process, and what is left of it. */
import { readdir, readFile } from 'node:fs/promises'

export interface ProcessInfo {
  readonly pid: number
  readonly parent: number
  /** With the pid it names one process for ever. */
  readonly startedAt: string
  readonly command: string
  readonly residentBytes: number
}

const pageBytes = 4096

export async function listProcesses(): Promise<ProcessInfo[]> {
  const found: ProcessInfo[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const read = async (file: string): Promise<string> =>
      await readFile(`/proc/${entry}/${file}`, 'utf8').catch(() => '')
    const [stat, command] = await Promise.all([read('stat'), read('cmdline')])
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields.length < 22 || fields[0] === 'Z') continue
    found.push({
      ...{ pid: Number(entry), parent: Number(fields[1]), startedAt: fields[19] as string },
      ...{ command: command.replaceAll('\0', ' ').trim(), residentBytes: Number(fields[21]) * pageBytes },
    })
  }
  return found
}

/** All that runs under a process, children of children too. */
export function descendants(all: readonly ProcessInfo[], root: number): ProcessInfo[] {
  const found: ProcessInfo[] = []
  const queue = [root]
  for (let pid = queue.shift(); pid !== undefined; pid = queue.shift())
    for (const one of all)
      if (one.parent === pid && !found.some(other => other.pid === one.pid)) {
        found.push(one)
        queue.push(one.pid)
      }
  return found
}

/** Remembers all that was ever seen under some processes, so that what outlives them is found. */
export class ProcessWatch {
  readonly #seen = new Map<string, ProcessInfo>()

  async look(roots: readonly number[]): Promise<ProcessInfo[]> {
    const all = await listProcesses()
    const under = roots.flatMap(root => [...all.filter(({ pid }) => pid === root), ...descendants(all, root)])
    // What was seen and lost its parent is watched with all that it starts.
    const orphans = all.filter(one => this.#seen.has(keyOf(one)))
    const now = [...under, ...orphans, ...orphans.flatMap(({ pid }) => descendants(all, pid))]
    const unique = [...new Map(now.map(one => [one.pid, one])).values()]
    for (const one of unique) this.#seen.set(keyOf(one), one)
    return unique
  }
}

const keyOf = ({ pid, startedAt }: ProcessInfo): string => `${pid} ${startedAt}`
