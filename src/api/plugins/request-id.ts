/** What every reply says of itself: which request it answers, and that browsers may do nothing with it but show it. */

import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { App } from '../api.ts'

const year = 31_536_000

/** To be added first. @param hasTls the node is reached by TLS alone */
export function addReplyHeaders(app: App, hasTls: boolean): void {
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

/**
 * The id of a request, in the log, the audit log, the reply and its problems: the client's own where it is sane, else
 * ours.
 */
const sane = /^[A-Za-z0-9][A-Za-z0-9._:-]{7,63}$/

/** @returns what names requests; no two nodes, and no two starts of one, give the same id */
export function requestIds(): (request: Pick<IncomingMessage, 'headers'>) => string {
  const start = randomBytes(6).toString('hex')
  let count = 0
  return ({ headers }) => {
    const given = headers['request-id']
    if (typeof given === 'string' && sane.test(given)) return given
    count += 1
    return `${start}-${count.toString(36)}`
  }
}
