/**
 * Names a process in the names of what it makes and may leave behind, so that others can tell whether it still runs:
 * `<where its number means something>-<pid>-<when it started>`.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import { processIdentity } from './process-identity.ts'

const pattern = /^([0-9a-f]{8})-(\d+)-([0-9a-f]{8})$/

/** Elsewhere the number of the process counts alone: whoever has it is taken for the same one. */
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

/** False also when nobody can tell: it is no such name, or of another machine, boot or container. Never throws. */
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

/** undefined: nobody is to be seen there. @throws when the system does not tell */
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
