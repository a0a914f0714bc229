/**
 * A proxy before the emulated S3 that fails on demand: it counts the requests by method, and asks `fault` what is to become
 * of each.
 */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

export type S3Fault =
  | 'reset'
  | 'hang'
  | { readonly status: number; readonly code: string }
  /** The reply breaks off, or falls silent, after so many bytes of its body. */
  | { readonly breakAfter: number }
  | { readonly stallAfter: number }

export interface S3Proxy {
  readonly url: string
  readonly calls: readonly { readonly method: string; readonly path: string; readonly headers: IncomingHttpHeaders }[]
  /** Asked with each request; undefined lets it pass. */
  fault: (method: string, path: string) => S3Fault | undefined
}

export async function startS3Proxy(t: Pick<Test, 'teardown'>, target: string): Promise<S3Proxy> {
  const calls: { method: string; path: string; headers: IncomingHttpHeaders }[] = []
  const server = createServer((incoming, reply) => {
    const { method = '', url = '' } = incoming
    calls.push({ method, path: url, headers: incoming.headers })
    const fault = proxy.fault(method, url)
    if (fault === 'reset') return incoming.socket.destroy()
    if (fault === 'hang') return incoming.resume()
    if (fault !== undefined && 'status' in fault) return refuse(incoming, reply, fault)
    return forward(target, incoming, reply, fault)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  const proxy: S3Proxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    fault: () => undefined,
  }
  return proxy
}

function refuse(incoming: IncomingMessage, reply: ServerResponse, { status, code }: { status: number; code: string }) {
  incoming.resume()
  reply.writeHead(status, { 'content-type': 'application/xml' })
  reply.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>as the test wants it</Message></Error>`)
}

function forward(
  target: string,
  incoming: IncomingMessage,
  reply: ServerResponse,
  fault: { readonly breakAfter?: number; readonly stallAfter?: number } = {},
): void {
  const { method = '', url = '', headers } = incoming
  const outgoing = request(target + url, { method, headers }, answer => {
    reply.writeHead(answer.statusCode ?? 500, answer.rawHeaders)
    const limit = fault.breakAfter ?? fault.stallAfter ?? Number.POSITIVE_INFINITY
    let passed = 0
    answer.on('data', (chunk: Buffer) => {
      const part = chunk.subarray(0, Math.max(0, limit - passed))
      passed += part.byteLength
      if (part.byteLength > 0) reply.write(part)
      if (passed >= limit && fault.breakAfter !== undefined) incoming.socket.destroySoon()
    })
    answer.on('end', () => passed < limit && reply.end())
  })
  outgoing.on('error', () => incoming.socket.destroy())
  incoming.pipe(outgoing)
}
