/**
 * A connection that is closed while the client still sends is reset by the system, and the reply is lost with it: the
 * client sees a broken pipe, and not why it was refused. So the reply is followed by the end of our side alone, and
 * what still comes is read for a while and thrown away (RFC 9112, 9.6).
 */
import type { IncomingMessage } from 'node:http'
import type { FastifyReply } from 'fastify'

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
    const disconnect = (): void => void socket.destroy()
    const whole = setTimeout(disconnect, mostMs).unref()
    const before = socket.bytesRead
    let seen = before
    const silence = setInterval(() => {
      if (socket.bytesRead === seen || socket.bytesRead - before > mostBytes) disconnect()
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

/** Aborts when the client disconnects or the node stops: a long poll ends then. */
export function signalOf(reply: FastifyReply, stopping: AbortSignal): AbortSignal {
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort())
  if (reply.raw.destroyed) gone.abort()
  return AbortSignal.any([gone.signal, stopping])
}

/**
 * Calls back once, when the reply is over. Node.js says "finish" also of a reply whose connection broke while most of
 * it was still to be written, so the connection is asked at that moment.
 * @param settle whether its last byte was handed to the network
 */
export function whenSent({ raw: response, request }: FastifyReply, settle: (wasSent: boolean) => void): void {
  const { socket } = request.raw
  let wasSent = false
  response.once('finish', () => {
    wasSent = !socket.destroyed && socket.errored === null
  })
  if (response.destroyed) settle(false)
  else response.once('close', () => settle(wasSent))
}
