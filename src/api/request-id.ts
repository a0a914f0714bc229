/** The id of a request, in the log, the audit log, the reply and its problems: the client's own where it is sane, else ours. */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

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
