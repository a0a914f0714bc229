/** Whether a process stands still because of a signal (SIGSTOP, Ctrl-Z). Known on Linux alone. */
import { readFileSync } from 'node:fs'

/** False also when nobody can tell, there is no such process, or a debugger holds it. Never throws. */
export function isStopped(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T')
  } catch {
    return false
  }
}
