/**
 * Who a process is, beyond its number, which is used again after its death: where it runs and when it started.
 */
import { execFile } from 'node:child_process'
import { readFile, readlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * When the process started, as an opaque text that differs for every process which ever has this number here;
 * undefined when it is gone (or dead and only not yet reaped).
 */
export async function processStart(pid: number): Promise<string | undefined> {
  if (process.platform !== 'linux') {
    const { stdout } = await run('ps', ['-o', 'lstart=', '-p', String(pid)], { timeout: 2000 }).catch(() => ({
      stdout: '',
    }))
    return stdout.trim() || undefined
  }
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '')
  // The name of the program stands in brackets and may itself hold spaces and brackets.
  const [state, ...rest] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return state === '' || state === 'Z' || state === 'X' ? undefined : rest[18]
}

/** The command line of a process; '' when it is gone. */
export async function processCommand(pid: number): Promise<string> {
  if (process.platform === 'linux') {
    const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    return text.replaceAll('\0', ' ').trim()
  }
  const { stdout } = await run('ps', ['-o', 'args=', '-p', String(pid)], { timeout: 2000 }).catch(() => ({
    stdout: '',
  }))
  return stdout.trim()
}

/** Names the space in which process numbers mean something: this boot of this machine, and the container. */
export async function processSpace(): Promise<string> {
  if (process.platform !== 'linux') return hostname()
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'latin1').catch(() => hostname())
  const namespace = await readlink('/proc/self/ns/pid').catch(() => '')
  return `${boot.trim()} ${namespace}`
}
