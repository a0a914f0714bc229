/** Ports for servers that must know theirs beforehand. */
import { once } from 'node:events'
import { createServer } from 'node:net'

/** Below those that systems give to outgoing connections, one of which might take the port before the server does. */
const lowest = 12_000
const highest = 31_999
const given = new Set<number>()

/** @returns a port of 127.0.0.1 that nobody listens on; a random one, so that tests side by side get others */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest + 1))
    if (given.has(port)) continue
    const server = createServer()
    const listening = once(server, 'listening').then(
      () => true,
      () => false,
    )
    server.listen(port, '127.0.0.1')
    if (!(await listening)) continue
    server.close()
    await once(server, 'close')
    given.add(port)
    return port
  }
}
