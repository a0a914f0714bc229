/** Tells whether a reply was handed to the network whole. */
import type { FastifyReply } from 'fastify'

/**
 * Calls back once, when the reply is over. Node.js says "finish" also of a reply whose connection broke while most of it was
 * still to be written, so the connection is asked at that moment.
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
