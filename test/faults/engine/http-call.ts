/** One call of a client to one node, with a time limit; what went wrong is told apart as the facts do. */
import { Agent, request } from 'undici'
import type { Failed } from './facts.ts'

const connectWithinMs = 1000

export interface CallOptions {
  readonly method: 'PUT' | 'POST'
  readonly url: string
  readonly headers: Record<string, string>
  readonly body?: string | undefined
  readonly withinMs: number
}

export type CallResult =
  | { readonly ok: true; readonly headers: Record<string, string | string[] | undefined>; readonly json: unknown }
  | { readonly ok: false; readonly why: Failed['why']; readonly code?: string }

export class HttpCaller {
  readonly #agent = new Agent({ connect: { timeout: connectWithinMs }, keepAliveTimeout: 10_000 })

  async call({ method, url, headers, body, withinMs }: CallOptions): Promise<CallResult> {
    const limit = new AbortController()
    const timer = setTimeout(() => limit.abort(), withinMs)
    try {
      const reply = await request(url, {
        dispatcher: this.#agent,
        method,
        headers,
        body: body ?? null,
        signal: limit.signal,
      })
      const text = await reply.body.text()
      if (reply.statusCode !== 200) return { ok: false, why: reply.statusCode }
      return { ok: true, headers: reply.headers, json: JSON.parse(text) as unknown }
    } catch (error) {
      if (limit.signal.aborted) return { ok: false, why: 'timeout' }
      const { code = (error as Error).name } = error as NodeJS.ErrnoException
      return { ok: false, why: neverConnected.has(code) ? 'refused' : 'cut', code }
    } finally {
      clearTimeout(timer)
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }
}

const neverConnected = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT'])

/** A node that is about to go says so in its replies: whoever knows another one asks there from now on. */
export const isLeaving = (result: CallResult): boolean => result.ok && result.headers['muster-leaving'] !== undefined

export const failure = (
  call: Failed['call'],
  client: string,
  node: string,
  atMs: number,
  { why, code }: Extract<CallResult, { ok: false }>,
): Failed => ({ kind: 'failed', call, client, node, atMs, why, ...(code !== undefined && { code }) })
