/**
 * One inline command to a Redis on a unix socket, on a connection of its own: for the time when no client can be
 * connected yet (starting, loading) or any more (stopping).
 */
import { createConnection } from 'node:net'

/**
 * Sends `command` (no spaces inside arguments) and returns the start of the raw reply; '' when the server hung up
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
