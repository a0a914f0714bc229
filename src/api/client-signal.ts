/** Ends a long poll when nobody waits for its reply any more: the client went away, or the node is stopping. */
import type { FastifyReply } from 'fastify'

export function signalOf(reply: FastifyReply, stopping: AbortSignal): AbortSignal {
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort())
  if (reply.raw.destroyed) gone.abort()
  return AbortSignal.any([gone.signal, stopping])
}
