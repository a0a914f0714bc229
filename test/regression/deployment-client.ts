/**
 * The deployment under test, as a client that knows all of its nodes sees it. A node that cannot be reached, or answers
 * 503, is asked again, the next one first, until the time is up: what is tested is the jobs, not one moment.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Dispatcher, request } from 'undici'

export interface Reply {
  readonly status: number
  readonly contentType: string
  readonly body: Buffer
}

export interface Call {
  readonly method: 'GET' | 'PUT'
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer | string
}

const answerWithinMs = 15_000
const pauseMs = 250

export class DeploymentClient {
  readonly #urls: readonly string[]
  readonly #headers: Readonly<Record<string, string>>

  constructor(urls: readonly string[], key: string) {
    this.#urls = urls
    this.#headers = key === '' ? {} : { authorization: `Bearer ${key}` }
  }

  /**
   * @param first which node to ask first, by its place in the list (modulo their number)
   * @param deadline in ms since the epoch
   * @throws Error with the last fault, when no node answered in time
   */
  async call(call: Call, first: number, deadline: number): Promise<Reply> {
    for (let turn = first; ; turn++) {
      const url = this.#urls[turn % this.#urls.length] as string
      let fault: string
      try {
        const reply = await this.#ask(url, call)
        if (![502, 503, 504].includes(reply.status)) return reply
        fault = `answered ${reply.status}: ${reply.body.toString().slice(0, 300)}`
      } catch (error) {
        fault = `cannot be reached: ${(error as Error).message || (error as NodeJS.ErrnoException).code}`
      }
      if (Date.now() + pauseMs >= deadline) throw new Error(`${url} ${fault}`)
      await sleep(pauseMs / 2 + (Math.random() * pauseMs) / 2)
    }
  }

  async #ask(url: string, { method, path, headers, body }: Call): Promise<Reply> {
    const response: Dispatcher.ResponseData = await request(url + path, {
      method,
      headers: { ...this.#headers, ...headers },
      body: body ?? null,
      headersTimeout: answerWithinMs,
      bodyTimeout: answerWithinMs,
      signal: AbortSignal.timeout(4 * answerWithinMs),
    })
    return {
      status: response.statusCode,
      contentType: String(response.headers['content-type'] ?? ''),
      body: Buffer.from(await response.body.arrayBuffer()),
    }
  }
}
