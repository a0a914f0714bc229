/**
 * Ends what a slot's handlers started in a session of its own: it is in no group of the slot, but has inherited a
 * variable that names the slot and its agent. Only where there is /proc (Linux); a process that was started with
 * another environment is not found.
 */
import { createHash, randomUUID } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { hostname } from 'node:os'
import { processIdentity } from './process-identity.ts'

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
 * Ends slots whose agent is gone, with what they started. They end by themselves, unless a signal has stopped them or
 * killed them first. Never throws.
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
  // Any user can set this variable: it gives no control over processes of other users.
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
    // It has ended, or belongs to another user.
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

/**
 * Names a process in the names of what it makes and may leave behind, so that others can tell whether it still runs:
 * `<where its number means something>-<pid>-<when it started>`.
 */
const pattern = /^([0-9a-f]{8})-(\d+)-([0-9a-f]{8})$/

/** On other systems the process number alone identifies a process. */
const knowsStarts = process.platform === 'linux' && existsSync('/proc/self/stat')

let own: string | undefined

/**
 * The name of this process: letters, digits and dashes.
 * @throws when the system does not tell, of too many open files say
 */
export function ownerName(): string {
  if (own !== undefined) return own
  const start = startOf(process.pid)
  if (start === undefined) throw new Error('The system does not say when this process started')
  own = `${space()}-${process.pid}-${start}`
  return own
}

/** False also when it is unknown: no such name, or another machine, boot or container. Never throws. */
export function isOwnerGone(name: string): boolean {
  const [, where, number, started] = pattern.exec(name) ?? []
  const pid = Number(number)
  if (where !== space() || pid === 0) return false
  let isOfOthers = false
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return true
    isOfOthers = true
  }
  try {
    const start = startOf(pid)
    // One of another user may be hidden; one of this user is a zombie then.
    return start === undefined ? !isOfOthers : start !== started
  } catch {
    return false
  }
}

/** undefined: no such process. @throws when the system does not tell */
function startOf(pid: number): string | undefined {
  if (!knowsStarts) return '00000000'
  const identity = processIdentity(pid)
  return identity === undefined ? undefined : digest(identity)
}

let knownSpace: string | undefined

/** This boot of this machine, and the container. */
function space(): string {
  knownSpace ??= digest([hostIdentity(), attempt(() => readlinkSync('/proc/self/ns/pid')) ?? ''].join(' '))
  return knownSpace
}

const hostIdentity = (): string =>
  attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()) ?? hostname()

function attempt(read: () => string): string | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 8)
