/**
 * A redis-server (or Sentinel) that this process starts: launched, ended, started again each time it ends by itself;
 * and the end of one that an earlier run left.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile, rename, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { StartupError } from '../errors.ts'
import { processCommand, processIdentity, signalProcess } from '../process-identity.ts'
import type { RedisBinary } from './redis-binary.ts'

/** Redis completes its file at SIGTERM, and a primary waits up to 10 s for its replicas; then comes SIGKILL. */
const ending = [
  { signal: 'SIGTERM', withinMs: 20_000 },
  { signal: 'SIGKILL', withinMs: 5000 },
] as const
/** A run that lasted this long counts as healthy: the restart after it has no delay. */
const healthyAfterMs = 30_000
const maxDelayMs = 5000
const maxLogBytes = 5 * 1024 * 1024

export interface ServerProcess {
  readonly pid: number | undefined
  /** Resolves with how it ended. */
  readonly ended: Promise<{ code: number | null; signal: string | null }>
  readonly hasEnded: () => boolean
  /** SIGTERM, then SIGKILL; returns when it is gone. */
  end(): Promise<void>
}

/** Starts a server in a process group of its own, so that Ctrl-C does not end it before the process that runs it. */
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
  for (const { signal, withinMs } of ending) {
    if (hasEnded()) return
    child.kill(signal)
    const waiting = new AbortController()
    await Promise.race([ended, delay(withinMs, undefined, { signal: waiting.signal }).catch(() => undefined)])
    waiting.abort()
  }
}

export interface KeepRunning {
  /** Runs already. */
  readonly first?: ServerProcess
  /** Starts the next one; undefined: it is not to run any more. */
  readonly launch: () => Promise<ServerProcess | undefined>
  /** Ends the restarts, not the server. */
  readonly signal: AbortSignal
  /** It ended by itself, or launch() failed; `delayMs` until the next start. */
  readonly onEnd: (how: Record<string, unknown> & { ranMs: number; delayMs: number }) => void | Promise<void>
  /** This one was ended to be started again at once. */
  readonly isPlanned?: (server: ServerProcess) => boolean
}

/** Starts a server again each time it ends: once at once, then with a delay that doubles up to 5 s. Never rejects. */
export async function keepRunning({ first, launch, signal, onEnd, isPlanned }: KeepRunning): Promise<void> {
  let running = first
  let quickEnds = 0
  while (!signal.aborted) {
    let startedMs = Date.now()
    let how: Record<string, unknown>
    try {
      running ??= await launch()
      if (running === undefined) return
      startedMs = Date.now()
      how = await running.ended
      if (isPlanned?.(running)) continue
    } catch (error) {
      how = { err: error }
    } finally {
      running = undefined
    }
    if (signal.aborted) return
    const ranMs = Date.now() - startedMs
    quickEnds = ranMs >= healthyAfterMs ? 0 : quickEnds + 1
    const delayMs = quickEnds <= 1 ? 0 : Math.min(100 * 2 ** (quickEnds - 2), maxDelayMs)
    await onEnd({ ...how, ranMs, delayMs })
    await delay(delayMs, undefined, { signal }).catch(() => undefined)
  }
}

/** The process of a pid file, if one of `names` is in its title or command line: the number may be another's by now. */
export async function notedPid(pidFile: string, names: readonly string[]): Promise<number | undefined> {
  const pid = Number(await readFile(pidFile, 'latin1').catch(() => ''))
  if (!Number.isSafeInteger(pid) || pid <= 1) return undefined
  return (await isProcessOf(pid, names)) ? pid : undefined
}

/** Whether one of `names` is in the title or command line of this process. */
export async function isProcessOf(pid: number, names: readonly string[]): Promise<boolean> {
  const command = await processCommand(pid)
  return names.some(name => command.includes(name))
}

/**
 * Ends a server of an earlier run, which may be busy ending: two on the same files would damage them. It is not
 * adopted: the system reports the end of children only, and it may run with an older configuration.
 * @throws StartupError when it cannot be ended
 */
export async function endLeftover(pid: number, files: string): Promise<void> {
  for (const { signal, withinMs } of ending) {
    try {
      signalProcess(pid, signal)
    } catch (error) {
      throw cannotEnd(pid, files, error)
    }
    const deadlineMs = Date.now() + withinMs
    while (Date.now() < deadlineMs) {
      if (processIdentity(pid) === undefined) return
      await delay(20)
    }
  }
  throw cannotEnd(pid, files)
}

const cannotEnd = (pid: number, files: string, cause?: unknown): StartupError =>
  new StartupError(`Process ${pid} of an earlier run uses ${files} and cannot be ended. End it by hand.`, { cause })

/** Renames a log that has grown long; the one before is lost. */
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
  return text.trimEnd().split('\n').slice(-8).join('\n')
}
