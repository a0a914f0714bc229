/** One run of a Redis or Sentinel of a server: launched, watched, ended; and the end of one that an earlier run left. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile, rename, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { StartupError } from '../../errors.ts'
import { processCommand, processStart } from '../process-identity.ts'
import type { RedisBinary } from '../redis-binary.ts'

/** Redis writes its file to the end, and a primary waits up to 10 s for its replicas. */
const termWithinMs = 20_000
const killWithinMs = 5000
const maxLogBytes = 20 * 1024 * 1024

export interface ServerProcess {
  readonly pid: number | undefined
  /** Resolves with how it ended. */
  readonly ended: Promise<{ code: number | null; signal: string | null }>
  readonly hasEnded: () => boolean
  /** SIGTERM, then SIGKILL; returns when it is gone. */
  end(): Promise<void>
}

/** Starts a server in a process group of its own, so that Ctrl-C does not end it before its supervisor is ready to. */
export function launchServer(binary: RedisBinary, args: readonly string[]): ServerProcess {
  const [program, ...before] = binary.command
  const child = spawn(program, [...before, ...args], { stdio: 'ignore', detached: true })
  const ended = new Promise<{ code: number | null; signal: string | null }>(resolve => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
    child.once('error', () => resolve({ code: null, signal: null }))
  })
  const hasEnded = (): boolean => child.pid === undefined || child.exitCode !== null || child.signalCode !== null
  return { pid: child.pid, ended, hasEnded, end: () => endChild(child, hasEnded, ended) }
}

async function endChild(child: ChildProcess, hasEnded: () => boolean, ended: Promise<unknown>): Promise<void> {
  for (const [signal, withinMs] of [
    ['SIGTERM', termWithinMs],
    ['SIGKILL', killWithinMs],
  ] as const) {
    if (hasEnded()) return
    child.kill(signal)
    const waiting = new AbortController()
    await Promise.race([ended, delay(withinMs, undefined, { signal: waiting.signal }).catch(() => undefined)])
    waiting.abort()
  }
}

/**
 * Ends a server that an earlier supervisor left, which may be busy ending: two on the same files would spoil them.
 * It is known by the configuration that stands in its title.
 * @throws StartupError when it cannot be ended
 */
export async function endLeftoverServer(pidFile: string, config: string): Promise<void> {
  const pid = Number(await readFile(pidFile, 'latin1').catch(() => ''))
  if (!Number.isSafeInteger(pid) || pid <= 1 || !(await processCommand(pid)).includes(config)) return
  for (const [signal, withinMs] of [
    ['SIGTERM', termWithinMs],
    ['SIGKILL', killWithinMs],
  ] as const) {
    try {
      process.kill(pid, signal)
    } catch {
      // gone by itself
    }
    const deadlineMs = Date.now() + withinMs
    while (Date.now() < deadlineMs) {
      if ((await processStart(pid)) === undefined) return
      await delay(20)
    }
  }
  throw new StartupError(`Process ${pid} of an earlier run uses ${config} and cannot be ended. End it by hand.`)
}

/** Puts a log that has grown long aside, in the place of the one before. */
export async function rotateLog(file: string): Promise<void> {
  const bytes = await stat(file).then(
    found => found.size,
    () => 0,
  )
  if (bytes > maxLogBytes) await rename(file, `${file}.1`)
}

/** The last lines of a log: why a server ended. */
export async function tailOf(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => '')
  return text.trimEnd().split('\n').slice(-6).join('\n')
}
