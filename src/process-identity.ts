/**
 * Tells one process from a later one that was given the same pid: by the time it started. Linux: from /proc, together
 * with the boot it belongs to. Elsewhere: from ps. A zombie counts as gone.
 */
import { execFile, execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { readFile, readlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { promisify } from 'node:util'

const psTimeoutMs = 2000

/**
 * Something that no other process with this pid has or had; undefined when no such process runs.
 * Blocks for some microseconds on Linux, for some milliseconds elsewhere.
 */
export function processIdentity(pid: number): string | undefined {
  return process.platform === 'linux' ? fromProc(pid) : fromPs(pid)
}

function fromProc(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may hold anything; the fields after it start with the state (3), the start time is 22.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined
    bootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    return `${bootId}:${fields[19]}`
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

let bootId: string | undefined

function fromPs(pid: number): string | undefined {
  try {
    const line = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
      timeout: psTimeoutMs,
      env: { ...process.env, LC_ALL: 'C' },
    }).trim()
    return line === '' || line.startsWith('Z') ? undefined : line.replace(/^\S+\s+/, '')
  } catch (error) {
    // ps ends with status 1 when it finds none.
    if ((error as { status?: number }).status === 1) return undefined
    throw error
  }
}

const isGone = (error: unknown): boolean => ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')

/**
 * Sends a signal to a process, or with a negative pid to its whole group.
 * @returns false when it is gone
 */
export function signalProcess(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal)
    return true
  } catch (error) {
    if (isGone(error)) return false
    throw error
  }
}

/**
 * Whether a signal stopped a process (SIGSTOP, Ctrl-Z). False where this is unknown (other systems than Linux), for no
 * such process, and when a debugger holds it. Never throws.
 */
export function isStopped(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T')
  } catch {
    return false
  }
}

/** The command line or title of a process; '' when it is gone. */
export async function processCommand(pid: number): Promise<string> {
  if (process.platform === 'linux') {
    const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    return text.replaceAll('\0', ' ').trim()
  }
  const { stdout } = await promisify(execFile)('ps', ['-o', 'args=', '-p', String(pid)], {
    timeout: psTimeoutMs,
  }).catch(() => ({ stdout: '' }))
  return stdout.trim()
}

/** Names the space in which a pid means something: this boot of this machine, and the container. */
export async function processSpace(): Promise<string> {
  if (process.platform !== 'linux') return hostname()
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'latin1').catch(() => hostname())
  const namespace = await readlink('/proc/self/ns/pid').catch(() => '')
  return `${boot.trim()} ${namespace}`
}
