/** Waits for the embedded Redis until it answers, over its unix socket, before a client can be connected. */
import { createConnection } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import type { EmbeddedFiles } from './embedded-config.ts'
import { notedPid, type ServerProcess, tailOf } from './server-process.ts'

const silentForMs = 15_000
const loadWithinMs = 30 * 60_000
const sayLoadingEveryMs = 5000

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

/** The Redis that another node left on these files: what its socket tells, else its pid file while it is silent. */
export async function leftoverPid(files: EmbeddedFiles): Promise<number | undefined> {
  const info = await askRedis(files.socket, 'INFO server', 2000)
  const pid = Number(/process_id:(\d+)/.exec(info ?? '')?.[1])
  return pid > 1 ? pid : await notedPid(files.pid, [files.socket, files.config])
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
