/** How many connections a node holds. Each takes memory before anybody knows whose it is. */
import type { Server } from 'node:http'
import type { Socket } from 'node:net'

/** How long a new connection may take to send the head of its first request, and others that of their next once it began. */
export const headWithinMs = 20_000

/** One address has half of all at most, so that it cannot keep everybody else out. More are hung up. */
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
