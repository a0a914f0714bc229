/** Calls to the nodes of a deployment; what no client must ever be answered is a fault at once. */
import { once } from 'node:events'
import { connect } from 'node:net'
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
  /** With the key of the other owner. */
  readonly asOther?: true
  readonly signal?: AbortSignal
}

/** No answer: the request may have been done or not. */
export class NoAnswer extends Error {}

export interface HttpEvents {
  /** A reply with 500. */
  onServerError(sentence: string): void
  /** A refusal that cannot be obeyed. */
  onWrongRefusal(sentence: string): void
}

const defaultTimeoutMs = 90_000
const retryEveryMs = 250
/** So often 429 is obeyed. */
const mostTries = 90

export class Http {
  readonly urls: readonly string[]
  readonly #events: HttpEvents
  /** How often each code of 429 and 503 was answered. */
  readonly refusals: Record<string, number> = {}
  #key: string
  #otherKey: string | undefined
  #next = 0

  constructor(urls: readonly string[], events: HttpEvents, key = '') {
    this.urls = urls
    this.#events = events
    this.#key = key
  }

  /** From now on all is asked with the first key, and as the other owner with the second. */
  useKeys(key: string, otherKey: string): void {
    this.#key = key
    this.#otherKey = otherKey
  }

  get hasOther(): boolean {
    return this.#otherKey !== undefined
  }

  /** One request to one node, in turn; again, as it is told, after each 429. @throws NoAnswer */
  async call(method: string, path: string, call: Call = {}): Promise<Reply> {
    for (let tries = 1; ; tries += 1) {
      const reply = await this.#once(method, path, call)
      if (reply.status !== 429 && reply.status !== 503) return reply
      this.refusals[reply.code()] = (this.refusals[reply.code()] ?? 0) + 1
      const waitS = Number(reply.headers.get('retry-after') ?? Number.NaN)
      const isObeyable = waitS > 0 && waitS <= 60
      if (!isObeyable || tries === mostTries)
        this.#events.onWrongRefusal(
          `${method} ${path.slice(0, 200)}: ${reply.status} ${reply.code()} for the ${tries}th time, Retry-After: ${waitS}`,
        )
      // A stream is gone once it was sent.
      if (reply.status === 503 || !isObeyable || tries === mostTries || call.body instanceof ReadableStream)
        return reply
      await delay(waitS * 1000, undefined, call.signal === undefined ? {} : { signal: call.signal }).catch(cause => {
        throw new NoAnswer(`${method} ${path.slice(0, 100)}: gave up waiting`, { cause })
      })
    }
  }

  /** Sends these requests, without bodies, on one connection to one node, reads nothing, and hangs up. Not over TLS. */
  async sendAndGo(requests: readonly { method: string; path: string }[], afterMs: number): Promise<void> {
    const { hostname, port, host, protocol } = new URL(this.urls[this.#next++ % this.urls.length] as string)
    if (protocol !== 'http:') return
    const key = this.#key === '' ? '' : `Authorization: Bearer ${this.#key}\r\n`
    // The node may be killed at any moment: that ends no drive.
    const socket = connect(Number(port), hostname).on('error', () => undefined)
    try {
      await once(socket, 'connect')
      for (const { method, path } of requests)
        socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${host}\r\n${key}Content-Length: 0\r\n\r\n`)
      await delay(afterMs)
    } catch (error) {
      throw new NoAnswer('pipelined requests', { cause: error })
    } finally {
      socket.destroy()
    }
  }

  async #once(method: string, path: string, { headers, body, timeoutMs, signal, asOther }: Call): Promise<Reply> {
    const url = this.urls[this.#next++ % this.urls.length] as string
    const key = asOther ? (this.#otherKey ?? '') : this.#key
    const askedAt = Date.now()
    const timeout = AbortSignal.timeout(timeoutMs ?? defaultTimeoutMs)
    const init = {
      ...{ method, headers: { ...(key !== '' && { authorization: `Bearer ${key}` }), ...headers } },
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
