/** One run of redis-server: launched, waited for until it answers, ended; and the end of one that another node left. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import type { EmbeddedFiles } from './embedded-config.ts'
import { processCommand, processStart } from './process-identity.ts'
import type { RedisBinary } from './redis-binary.ts'

const silentForMs = 15_000
const loadWithinMs = 30 * 60_000
const sayLoadingEveryMs = 5000
const shutdownWithinMs = 10_000
const termWithinMs = 5000

/** Starts redis-server in a process group of its own: Ctrl-C is for the node, which stops Redis last. */
export function launchRedis(binary: RedisBinary, files: EmbeddedFiles): ChildProcess {
  const [program, ...args] = binary.command
  const child = spawn(program, [...args, files.config], { stdio: 'ignore', detached: true })
  child.on('error', () => undefined) // a failed start has no pid, and untilAnswers() says so
  return child
}

export const hasEnded = (child: ChildProcess): boolean =>
  child.pid === undefined || child.exitCode !== null || child.signalCode !== null

/**
 * Returns when Redis has loaded its data and answers. However long loading takes (up to 30 minutes) is waited for, as
 * long as it answers that it is loading.
 * @throws StartupError with the end of its log when it ends or stays silent for 15 s
 */
export async function untilAnswers(
  child: ChildProcess,
  files: EmbeddedFiles,
  log: Pick<Logger, 'info'>,
): Promise<void> {
  const startedMs = Date.now()
  let heardMs = startedMs
  let saidMs = startedMs
  for (;;) {
    if (hasEnded(child)) throw await startFailure('ended as soon as it was started', files)
    const reply = await askRedis(files.socket, 'PING', 1000)
    if (reply?.startsWith('+PONG')) return
    const nowMs = Date.now()
    if (reply?.startsWith('-LOADING')) {
      heardMs = nowMs
      if (nowMs - saidMs > sayLoadingEveryMs) {
        log.info({ loadingForMs: nowMs - startedMs }, 'Redis is loading its data')
        saidMs = nowMs
      }
    }
    if (nowMs - heardMs > silentForMs || nowMs - startedMs > loadWithinMs)
      throw await startFailure('does not answer', files)
    await delay(5)
  }
}

/** Ends a Redis of ours: SHUTDOWN, then SIGTERM, then SIGKILL, each with its time; returns when it is gone. */
export async function endRedis(child: ChildProcess, files: EmbeddedFiles): Promise<void> {
  const heard = await askRedis(files.socket, 'SHUTDOWN NOSAVE', shutdownWithinMs)
  // No reply: it does not listen yet, or hangs.
  if (heard !== undefined && (await within(termWithinMs, () => hasEnded(child)))) return
  child.kill('SIGTERM')
  if (await within(termWithinMs, () => hasEnded(child))) return
  child.kill('SIGKILL')
  await within(termWithinMs, () => hasEnded(child))
}

/**
 * Ends a Redis that a node left behind when it was killed. It is not adopted: the system reports the end of children only, and
 * it may run with an older configuration.
 * @throws StartupError when it cannot be ended
 */
export async function endLeftover(files: EmbeddedFiles): Promise<void> {
  const told = await toldPid(files)
  const pid = told ?? (await notedPid(files))
  if (pid === undefined) return
  const isGone = async (): Promise<boolean> => (await processStart(pid)) === undefined
  if (told !== undefined) {
    await askRedis(files.socket, 'SHUTDOWN NOSAVE', shutdownWithinMs)
    if (await within(termWithinMs, isGone)) return
  }
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    signalQuietly(pid, signal)
    if (await within(termWithinMs, isGone)) return
  }
  throw new StartupError(
    `A redis-server (process ${pid}) of an earlier run uses ${files.folder} and cannot be ended. End it by hand.`,
  )
}

/** What the server at our socket says of itself. */
async function toldPid(files: EmbeddedFiles): Promise<number | undefined> {
  const info = await askRedis(files.socket, 'INFO server', 2000)
  const pid = Number(/process_id:(\d+)/.exec(info ?? '')?.[1])
  return pid > 1 ? pid : undefined
}

/** The pid file of a server that is silent or just ending; by now the number may be another's. */
async function notedPid(files: EmbeddedFiles): Promise<number | undefined> {
  const pid = Number(await readFile(files.pid, 'latin1').catch(() => ''))
  if (!Number.isSafeInteger(pid) || pid <= 1) return undefined
  const command = await processCommand(pid)
  return command.includes(files.socket) || command.includes(files.config) ? pid : undefined
}

function signalQuietly(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // gone by itself
  }
}

async function within(ms: number, isTrue: () => boolean | Promise<boolean>): Promise<boolean> {
  const deadlineMs = Date.now() + ms
  while (!(await isTrue())) {
    if (Date.now() > deadlineMs) return false
    await delay(10)
  }
  return true
}

async function startFailure(what: string, files: EmbeddedFiles): Promise<StartupError> {
  const log = await readFile(files.log, 'utf8').catch(() => '')
  const tail = log.trimEnd().split('\n').slice(-8).join('\n')
  return new StartupError(`The embedded redis-server ${what}. The end of ${files.log}:\n${tail || '(empty)'}`)
}

/**
 * One inline command to a Redis on a unix socket, on a connection of its own: for the time when no client can be
 * connected yet (starting, loading) or any more (stopping).
 */

/**
 * Sends `command` (no spaces inside arguments) and returns the start of the raw reply; '' when the server closed the connection
 * without one, undefined when nothing answered within `timeoutMs`.
 */
export function askRedis(socketPath: string, command: string, timeoutMs: number): Promise<string | undefined> {
  return new Promise(resolve => {
    const socket = createConnection(socketPath)
    let connected = false
    const settle = (reply: string | undefined): void => {
      clearTimeout(timer)
      socket.destroy()
      resolve(reply)
    }
    const timer = setTimeout(() => settle(undefined), timeoutMs)
    socket.once('connect', () => {
      connected = true
      socket.write(`${command}\r\n`)
    })
    socket.once('data', data => settle(data.toString('latin1')))
    socket.on('error', () => settle(connected ? '' : undefined))
    socket.once('close', () => settle(connected ? '' : undefined))
  })
}
