/** One HTTP request to moto, answered whole. Never repeated: the rules above decide what a failure means. */
import { type IncomingHttpHeaders, request } from 'node:http'

export interface HttpRequest {
  readonly method?: string
  readonly path?: string
  readonly headers?: NodeJS.Dict<string | string[]>
  readonly body?: string | Buffer
}

export interface HttpReply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

const timeoutMs = 30_000

/** @throws when there is no reply within 30 s */
export function httpCall(
  base: string,
  { method = 'GET', path = '/', headers, body = '' }: HttpRequest,
): Promise<HttpReply> {
  return new Promise((resolve, reject) => {
    // The development server under moto closes each connection, so none is kept.
    const call = request(
      new URL(base),
      {
        method,
        path,
        agent: false,
        signal: AbortSignal.timeout(timeoutMs),
        headers: { ...headers, 'content-length': Buffer.byteLength(body), connection: 'close' },
      },
      reply => {
        const chunks: Buffer[] = []
        reply.on('data', (chunk: Buffer) => chunks.push(chunk))
        reply.on('error', reject)
        reply.on('end', () =>
          resolve({ status: reply.statusCode ?? 0, headers: reply.headers, body: Buffer.concat(chunks) }),
        )
      },
    )
    call.on('error', reject)
    call.end(body)
  })
}
