/** Waits for the embedded Redis until it answers, over its unix socket, before a client can be connected. */
import { createConnection } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import type { EmbeddedFiles } from './embedded-config.ts'
import { endLeftover, isProcessOf, notedPid, type ServerProcess, tailOf } from './server-process.ts'

const silentForMs = 15_000
const loadWithinMs = 30 * 60_000
const sayLoadingEveryMs = 5000
/** For a Redis that only its socket reaches. */
const shutdownWithinMs = 20_000

/**
 * Returns when Redis has loaded its data and answers. Loading may take up to 30 minutes, while it answers that it
 * loads.
 * @throws StartupError with the end of its log when it ends or stays silent for 15 s
 */
export async function untilAnswers(
  server: ServerProcess,
  files: EmbeddedFiles,
  log: Pick<Logger, 'info'>,
): Promise<void> {
  const startedMs = Date.now()
  let heardMs = startedMs
  let saidMs = startedMs
  for (;;) {
    if (server.hasEnded()) throw await startFailure('ended as soon as it was started', files)
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

/**
 * Ends the Redis that an earlier node left on these files. Its socket reaches it in another container too, where its
 * process number means nothing here. While it is silent, its pid file names it.
 * @throws StartupError when it cannot be ended
 */
export async function endLeftoverRedis(files: EmbeddedFiles): Promise<void> {
  const names = [files.socket, files.config]
  const info = await askRedis(files.socket, 'INFO server', 2000)
  if (info !== undefined) await askRedis(files.socket, 'SHUTDOWN NOSAVE', 2000)
  const told = Number(/process_id:(\d+)/.exec(info ?? '')?.[1])
  const pid = told > 1 && (await isProcessOf(told, names)) ? told : await notedPid(files.pid, names)
  if (pid !== undefined) return await endLeftover(pid, files.folder)
  const deadlineMs = Date.now() + shutdownWithinMs
  while ((await askRedis(files.socket, 'PING', 1000)) !== undefined) {
    if (Date.now() > deadlineMs)
      throw new StartupError(`A Redis that this system does not show uses ${files.folder}. End it by hand.`)
    await delay(20)
  }
}

async function startFailure(what: string, files: EmbeddedFiles): Promise<StartupError> {
  const tail = (await tailOf(files.log)) || '(empty)'
  return new StartupError(`The embedded redis-server ${what}. The end of ${files.log}:\n${tail}`)
}

/**
 * Sends one inline command (no spaces inside arguments) and returns the start of the raw reply; '' when the server
 * closed the connection without one, undefined when nothing answered within `timeoutMs`.
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
