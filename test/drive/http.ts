/** Calls to the nodes of a deployment; what no client must ever be answered is a fault at once. */
import { setTimeout as delay } from 'node:timers/promises'

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly bytes: Buffer
  readonly askedAt: number
  readonly at: number
  /** The body as JSON. @throws when it is none */
  // biome-ignore lint/suspicious/noExplicitAny: replies are looked at where they are used
  json(): any
  /** Code of a problem, or an empty string. */
  code(): string
}

export interface Call {
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array | string | ReadableStream
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** No answer: the request may have been done or not. */
export class NoAnswer extends Error {}

export interface HttpEvents {
  /** A reply with 500. */
  onServerError(sentence: string): void
}

const defaultTimeoutMs = 90_000
const retryEveryMs = 250

export class Http {
  readonly urls: readonly string[]
  readonly #events: HttpEvents
  readonly #authorization: Readonly<Record<string, string>>
  #next = 0

  constructor(urls: readonly string[], events: HttpEvents, key = '') {
    this.urls = urls
    this.#events = events
    this.#authorization = key === '' ? {} : { authorization: `Bearer ${key}` }
  }

  /** One request to one node, in turn. @throws NoAnswer */
  async call(method: string, path: string, { headers, body, timeoutMs, signal }: Call = {}): Promise<Reply> {
    const url = this.urls[this.#next++ % this.urls.length] as string
    const askedAt = Date.now()
    const timeout = AbortSignal.timeout(timeoutMs ?? defaultTimeoutMs)
    const init = {
      ...{ method, headers: { ...this.#authorization, ...headers } },
      ...{ signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]) },
      ...(body !== undefined && { body, ...(body instanceof ReadableStream && { duplex: 'half' }) }),
    }
    try {
      const response = await fetch(url + path, init as RequestInit)
      const bytes = Buffer.from(await response.arrayBuffer())
      const reply = makeReply(response, bytes, askedAt)
      if (reply.status === 500)
        this.#events.onServerError(`${method} ${path.slice(0, 200)}: 500 ${bytes.toString().slice(0, 400)}`)
      return reply
    } catch (error) {
      throw new NoAnswer(`${method} ${path.slice(0, 100)}: no answer`, { cause: error })
    }
  }

  /** Until a node answers other than 503; for what may be done twice. @throws NoAnswer when none does in time */
  async insist(method: string, path: string, call: Call = {}, withinMs = 120_000): Promise<Reply> {
    const deadline = Date.now() + withinMs
    for (;;) {
      try {
        const reply = await this.call(method, path, call)
        if (reply.status !== 503) return reply
      } catch (error) {
        if (!(error instanceof NoAnswer) || call.signal?.aborted) throw error
      }
      if (Date.now() > deadline) throw new NoAnswer(`${method} ${path.slice(0, 100)}: no answer for ${withinMs} ms`)
      await delay(retryEveryMs)
    }
  }
}

function makeReply(response: Response, bytes: Buffer, askedAt: number): Reply {
  const json = (): unknown => JSON.parse(bytes.toString())
  const code = (): string => {
    try {
      return String((json() as { code?: unknown }).code ?? '')
    } catch {
      return ''
    }
  }
  return { status: response.status, headers: response.headers, bytes, askedAt, at: Date.now(), json, code }
}
