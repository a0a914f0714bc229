/**
 * A connection that is closed while the client still sends is reset by the system, and the reply is lost with it: the client
 * sees a broken pipe, and not why it was refused. So the reply is followed by the end of our side alone, and what still comes
 * is read for a while and thrown away (RFC 9112, 9.6).
 */
import type { IncomingMessage } from 'node:http'

const mostMs = 10_000
const silentMs = 2000
const mostBytes = 128 * 1024 * 1024

/** To be called before a reply with `Connection: close`, whose request has not come in whole. */
export function lingerAfter(request: IncomingMessage): void {
  const { socket } = request
  const { destroySoon } = socket
  // What Node.js calls when such a reply is sent.
  socket.destroySoon = () => {
    socket.destroySoon = destroySoon
    socket.end()
    const hangUp = (): void => void socket.destroy()
    const whole = setTimeout(hangUp, mostMs).unref()
    const before = socket.bytesRead
    let seen = before
    const silence = setInterval(() => {
      if (socket.bytesRead === seen || socket.bytesRead - before > mostBytes) hangUp()
      seen = socket.bytesRead
    }, silentMs).unref()
    socket.once('close', () => {
      clearInterval(silence)
      clearTimeout(whole)
    })
    // Not at once: the reply may still be on its way out.
    const end = (): void => void socket.destroySoon()
    request.once('close', end)
    request.resume()
    if (request.complete || request.destroyed) end()
  }
}
