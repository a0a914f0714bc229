/**
 * Ends what a slot's handlers started in a session of its own: it is in no group of the slot, but has inherited a variable that
 * names the slot. Only where there is /proc (Linux); a process that was started with another environment is not found.
 */
import { readdirSync, readFileSync } from 'node:fs'

export const slotMark = 'MUSTER_SLOT_MARK'

/** Never throws. The caller itself is spared. */
export function endMarked(mark: string): void {
  for (const entry of list('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    try {
      if (readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(`${slotMark}=${mark}`))
        process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended, or belongs to somebody else.
    }
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
