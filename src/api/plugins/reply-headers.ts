/** What every reply says of itself: which request it answers, and that browsers may do nothing with it but show it. */
import type { FastifyInstance } from 'fastify'

const year = 31_536_000

/** To be added first. @param hasTls the node is reached by TLS alone */
export function addReplyHeaders(app: FastifyInstance, hasTls: boolean): void {
  const headers = {
    // Results and keys are for who asked; what is the same for all says so itself (asset.ts).
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    ...(hasTls && { 'strict-transport-security': `max-age=${year}` }),
  }
  app.addHook('onRequest', (request, reply, done) => {
    void reply.headers(headers).header('request-id', request.id)
    done()
  })
}
