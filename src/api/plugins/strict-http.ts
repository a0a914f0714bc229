/**
 * What a request may not leave open or ask for: one host and one type, bodies as they are, no expectation but
 * 100-continue.
 */

import type { FastifyRequest } from 'fastify'
import { Problem } from '../../errors.ts'
import type { App } from '../api.ts'

/** A name or an address, and perhaps a port. */
const hostPattern = /^(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::\d{1,5})?$/i

export function addStrictHttp(app: App): void {
  app.addHook('onRequest', (request, _reply, done) => done(faultOf(request)))
  app.server.on('checkExpectation', (request, response) => {
    const problem = new Problem(
      'expectation_unsupported',
      `"Expect: ${String(request.headers.expect).slice(0, 100)}" is not understood here; only 100-continue is.`,
    )
    response.writeHead(problem.status, { 'content-type': 'application/problem+json', connection: 'close' })
    response.end(JSON.stringify(problem.toBody()))
  })
}

function faultOf({ raw }: FastifyRequest): Problem | undefined {
  const twice = givenTwice(raw.rawHeaders)
  if (twice !== undefined) return new Problem('request_invalid', `There is more than one header ${twice}.`)
  const { host, 'content-encoding': encoding, 'transfer-encoding': transfer } = raw.headers
  if (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity')
    return new Problem(
      'content_encoding_unsupported',
      `The body is sent with Content-Encoding: ${encoding.slice(0, 50)}.`,
    )
  if (transfer !== undefined && transfer.trim().toLowerCase() !== 'chunked')
    return new Problem(
      'content_encoding_unsupported',
      `The body is sent with Transfer-Encoding: ${transfer.slice(0, 50)}.`,
    )
  if (host === undefined && raw.httpVersion !== '1.0') return new Problem('request_invalid', 'There is no header Host.')
  if (host === undefined || hostPattern.test(host)) return undefined
  return new Problem('request_invalid', 'The header Host is neither a name nor an address.')
}

/** Of several of them Node.js takes the first and says nothing. */
const givenOnce = ['host', 'content-type', 'authorization'] as const

/** @param headers names and values by turns */
function givenTwice(headers: readonly string[]): string | undefined {
  return givenOnce.find(name => {
    let count = 0
    for (let index = 0; index < headers.length; index += 2) {
      const given = headers[index] as string
      if (given.length === name.length && given.toLowerCase() === name) count += 1
    }
    return count > 1
  })
}
