/**
 * Ends what a slot's handlers started in a session of its own: it is in no group of the slot, but has inherited a variable that
 * names the slot and its agent. Only where there is /proc (Linux); a process that was started with another environment is not
 * found.
 */
import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { isOwnerGone, ownerName } from './process-owner.ts'

export const slotMark = 'MUSTER_SLOT_MARK'

/** For a slot of this process. */
export const newMark = (): string => `${ownerName()}-${randomUUID()}`

/** The agent in a mark, as process-owner names it. */
export const agentOf = (mark: string): string => mark.slice(0, -37)

/** What ends may just be starting something: it is looked for so often at most. */
const mostLooks = 10

/** Never throws. The caller itself is spared. */
export function endMarked(mark: string): void {
  endThose(borne => borne === mark)
}

/**
 * Ends slots whose agent is gone, with what they started. They end by themselves, unless a signal has stopped them or killed them
 * first. Never throws.
 * @param users whose processes these may be, besides those of the caller's own user
 */
export function endOrphans(users: readonly number[] = []): void {
  const mayBeOf = [process.getuid?.(), ...users]
  const gone = new Map<string, boolean>()
  const isGone = (agent: string): boolean => {
    const known = gone.get(agent) ?? isOwnerGone(agent)
    gone.set(agent, known)
    return known
  }
  // A mark is only a variable, which everybody can set: it gives nobody a hand on processes of others.
  endThose((borne, pid) => isGone(agentOf(borne)) && mayBeOf.includes(statSync(`/proc/${pid}`).uid))
}

function endThose(isMeant: (mark: string, pid: number) => boolean): void {
  const ended = new Set<number>()
  for (let look = 0; look < mostLooks; look++) {
    const found = list('/proc')
      .map(Number)
      .filter(pid => pid > 1 && pid !== process.pid && !ended.has(pid) && isMarked(pid, isMeant))
    if (found.length === 0) return
    for (const pid of found) {
      ended.add(pid)
      // One that leads a group takes it along.
      kill(-pid)
      kill(pid)
    }
  }
}

function isMarked(pid: number, isMeant: (mark: string, pid: number) => boolean): boolean {
  try {
    const variables = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0')
    const mark = variables.find(variable => variable.startsWith(`${slotMark}=`))?.slice(slotMark.length + 1)
    return mark !== undefined && isMeant(mark, pid)
  } catch {
    // It has ended, or belongs to somebody else.
    return false
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended, or there is no such group.
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
