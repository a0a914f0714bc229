/** Limits the connections that a node holds: each takes memory before its client is known. */
import type { Server } from 'node:http'
import type { Socket } from 'node:net'

/** The time for the head of a request: the first from the connection on, each later one from its first byte. */
export const headWithinMs = 20_000

/** One address may have half of the connections, so that the others stay reachable. The node closes those beyond. */
export function limitConnections(server: Server, most: number): void {
  const mostOfOne = Math.ceil(most / 2)
  const counts = new Map<string, number>()
  server.maxConnections = most
  server.prependListener('connection', (socket: Socket) => {
    const { remoteAddress: address } = socket
    if (address === undefined) return
    const count = counts.get(address) ?? 0
    // Later: others are still to hear of it, and TLS takes no socket that is gone.
    if (count >= mostOfOne) return void setImmediate(() => socket.destroy())
    counts.set(address, count + 1)
    socket.once('close', () => {
      const left = (counts.get(address) ?? 1) - 1
      if (left === 0) counts.delete(address)
      else counts.set(address, left)
    })
  })
}
