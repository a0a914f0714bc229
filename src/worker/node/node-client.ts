/**
 * Calls to the nodes: one of them at a time, the next one when it cannot be reached or answers that it cannot now.
 * Every call has a time limit and a bounded number of tries; what to do when all fail is up to the caller.
 */
import type { Logger } from 'pino'
import { type Dispatcher, Pool } from 'undici'
import type {
  CheckpointReply,
  ClaimReply,
  ClaimRequest,
  CompleteReply,
  Content,
  HeartbeatReply,
  HeartbeatRequest,
  ReturnReply,
  ReturnRequest,
} from '../../contract/worker-protocol.ts'
import { Backoff } from '../../retry.ts'
import { NodeChoice } from './node-choice.ts'

export interface NodeClientOptions {
  readonly nodeUrls: readonly string[]
  /** Sent as bearer token unless empty. */
  readonly token: string
  /** Authorities to trust; left out: the well-known. */
  readonly ca?: readonly string[]
  readonly log: Logger
}

export interface CallOptions {
  /** How long the node may let the answer wait. */
  readonly waitMs?: number
  /** Ends the call with the signal's reason. */
  readonly signal?: AbortSignal
  /** Rounds over all nodes before giving up; 2 when left out. */
  readonly rounds?: number
}

interface Request extends CallOptions {
  readonly method: 'GET' | 'POST' | 'PUT'
  readonly path: string
  readonly body?: string | Uint8Array
  readonly contentType?: string
}

/** Above a second it would be rounded up to the next one. */
const connectWithinMs = 800
const answerWithinMs = 10_000
/** A node that hands the bytes on to a store may take its time over the last of them. */
const uploadAnswerWithinMs = 60_000
const keepAliveMs = 30_000

export class NodeClient {
  readonly #pools: readonly Pool[]
  readonly #urls: readonly string[]
  #headers: Record<string, string>
  readonly #choice: NodeChoice
  #lastReachedMs = performance.now()

  constructor({ nodeUrls, token, ca, log }: NodeClientOptions) {
    this.#urls = nodeUrls
    this.#headers = token === '' ? {} : { authorization: `Bearer ${token}` }
    this.#pools = nodeUrls.map(
      url =>
        new Pool(new URL(url).origin, {
          connect: { timeout: connectWithinMs, ...(ca !== undefined && { ca: [...ca] }) },
          keepAliveTimeout: keepAliveMs,
          headersTimeout: answerWithinMs,
          bodyTimeout: answerWithinMs,
        }),
    )
    this.#choice = new NodeChoice({ urls: nodeUrls, pools: this.#pools, log })
  }

  /** A node sent a new token: every call carries it from now on. */
  renewToken(token: string): void {
    this.#headers = { authorization: `Bearer ${token}` }
  }

  /** When a node last sent a proper answer, in performance.now(); "cannot now" (502, 503, 504) is none. */
  get lastReachedMs(): number {
    return this.#lastReachedMs
  }

  /** Grows each time another node is talked to: long polls belong there from then on. */
  get moveCount(): number {
    return this.#choice.moveCount
  }

  /** @throws NodeError */
  async heartbeat(request: HeartbeatRequest, options: CallOptions = {}): Promise<HeartbeatReply> {
    return await this.#post('/workers/heartbeat', JSON.stringify(request), options)
  }

  /** @throws NodeError */
  async claim(request: ClaimRequest, options: CallOptions = {}): Promise<ClaimReply> {
    return await this.#post('/workers/claim', JSON.stringify(request), options)
  }

  /**
   * @param body a CompleteRequest as JSON: completions are encoded as they come, once
   * @throws NodeError
   */
  async complete(body: string, options: CallOptions = {}): Promise<CompleteReply> {
    return await this.#post('/workers/complete', body, options)
  }

  /** @throws NodeError */
  async requeue(request: ReturnRequest, options: CallOptions = {}): Promise<ReturnReply> {
    return await this.#post('/workers/return', JSON.stringify(request), options)
  }

  /**
   * Uploads a result that is too large for a completion.
   * @returns what to put into the completion
   * @throws NodeError
   */
  async upload(
    ref: { workId: string; token: string },
    kind: 'bytes' | 'json',
    bytes: Uint8Array,
    options: CallOptions = {},
  ): Promise<Content> {
    const path = `/workers/results/${encodeURIComponent(ref.workId)}?token=${encodeURIComponent(ref.token)}&kind=${kind}`
    const response = await this.#request({
      ...options,
      method: 'PUT',
      path,
      body: bytes,
      contentType: 'application/octet-stream',
    })
    return ((await this.#json(response)) as { value: Content }).value
  }

  /**
   * Leaves a checkpoint for the next attempt at a job.
   * @throws NodeError
   */
  async keepCheckpoint(
    ref: { workId: string; token: string },
    bytes: Uint8Array,
    options: CallOptions = {},
  ): Promise<CheckpointReply> {
    const path = checkpointPath(ref)
    const upload = { method: 'PUT', path, body: bytes, contentType: 'application/octet-stream' } as const
    return (await this.#json(await this.#request({ ...options, ...upload }))) as CheckpointReply
  }

  /**
   * The handlers of the nodes; undefined when they have none but the built-in ones.
   * @throws NodeError
   */
  async handlers(options: CallOptions = {}): Promise<{ code: Buffer; digest: string } | undefined> {
    const response = await this.#request({ ...options, method: 'GET', path: '/workers/handlers' })
    const code = Buffer.from(await response.body.arrayBuffer())
    if (response.statusCode === 204) return undefined
    return { code, digest: String(response.headers['muster-digest']) }
  }

  /**
   * Opens a blob. The caller reads the body to its end or destroys it.
   * @param url as in a Content: relative to the node
   * @throws NodeError
   */
  async openBlob(url: string, options: CallOptions = {}): Promise<Dispatcher.ResponseData['body']> {
    const response = await this.#request({ ...options, method: 'GET', path: url })
    return response.body
  }

  /**
   * Opens the newest checkpoint of a job. The caller reads the body to its end or destroys it.
   * @returns the body, and what it has to be: its length in bytes and its SHA-256 in hex
   * @throws NodeError, `job_not_found` when there is none, `reply_invalid` when the reply does not say what it has to
   * be
   */
  async openCheckpoint(
    ref: { workId: string; token: string },
    options: CallOptions = {},
  ): Promise<{ body: Dispatcher.ResponseData['body']; bytes: number; sha256: string }> {
    const { body, headers } = await this.#request({ ...options, method: 'GET', path: checkpointPath(ref) })
    const bytes = Number(headers['content-length'] ?? Number.NaN)
    const [, digest] = /sha-256=:([^:]+):/.exec(String(headers['repr-digest'])) ?? []
    if (Number.isSafeInteger(bytes) && digest !== undefined)
      return { body, bytes, sha256: Buffer.from(digest, 'base64').toString('hex') }
    // What has come in whole already ends with an error, too.
    body.on('error', () => undefined).destroy()
    throw new NodeError('reply_invalid', 200, 'The reply has no Content-Length or no Repr-Digest')
  }

  /** Ends all connections, and what is in flight on them. */
  async close(): Promise<void> {
    this.#choice.close()
    await Promise.all(this.#pools.map(pool => pool.destroy().catch(() => undefined)))
  }

  async #post<Reply>(path: string, body: string, options: CallOptions): Promise<Reply> {
    const response = await this.#request({ ...options, method: 'POST', path, body, contentType: 'application/json' })
    return (await this.#json(response)) as Reply
  }

  async #json(response: Dispatcher.ResponseData): Promise<unknown> {
    try {
      return JSON.parse(await response.body.text())
    } catch (error) {
      throw new NodeError('unreachable', 0, `The node's answer broke off: ${(error as Error).message}`, {
        cause: error,
      })
    }
  }

  /** Tries the nodes in turn until one answers properly; waits between rounds. */
  async #request(request: Request): Promise<Dispatcher.ResponseData> {
    const never = new AbortController().signal
    const signal = request.signal ?? never
    const backoff = new Backoff(50, 1000)
    const tries = this.#pools.length * (request.rounds ?? 2)
    for (let tried = 1; ; tried++) {
      const index = this.#choice.current
      try {
        return await this.#requestFrom(index, request)
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof NodeError)) throw error
        const isAway = error.status === 0 || [502, 503, 504].includes(error.status)
        if (!isAway) throw error
        this.#choice.failed(index, error.message)
        if (tried >= tries) throw error
        if (tried % this.#pools.length === 0) await backoff.wait(signal)
        signal.throwIfAborted()
      }
    }
  }

  async #requestFrom(
    index: number,
    { method, path, body, contentType, waitMs, signal }: Request,
  ): Promise<Dispatcher.ResponseData> {
    const pool = this.#pools[index] as Pool
    const basePath = new URL(this.#urls[index] as string).pathname.replace(/\/$/, '')
    const call = this.#choice.open(index)
    const signals = [signal, call.signal].filter(one => one !== undefined)
    let response: Dispatcher.ResponseData
    try {
      response = await pool.request({
        method,
        path: basePath + path,
        headers: contentType === undefined ? this.#headers : { ...this.#headers, 'content-type': contentType },
        body: body ?? null,
        headersTimeout: method === 'PUT' ? uploadAnswerWithinMs : answerWithinMs + (waitMs ?? 0),
        ...(signals.length > 0 && { signal: signals.length === 1 ? signals[0] : AbortSignal.any(signals) }),
      })
    } catch (error) {
      call.close(false)
      throw new NodeError('unreachable', 0, `${this.#urls[index]} cannot be reached: ${(error as Error).message}`, {
        cause: error,
      })
    }
    response.body.once('close', () => call.close(true))
    if (response.headers['muster-leaving'] !== undefined) this.#choice.leaving(index)
    if (response.statusCode < 300) {
      this.#lastReachedMs = performance.now()
      return response
    }
    throw await this.#toError(response)
  }

  async #toError(response: Dispatcher.ResponseData): Promise<NodeError> {
    const status = response.statusCode
    if (![502, 503, 504].includes(status)) this.#lastReachedMs = performance.now()
    const text = await response.body.text().catch(() => '')
    let problem: { code?: string; detail?: string; action?: string } = {}
    try {
      problem = JSON.parse(text) as typeof problem
    } catch {
      problem = { detail: text.slice(0, 200) }
    }
    const retryAfter = Number(response.headers['retry-after'])
    return new NodeError(
      problem.code ?? `http_${status}`,
      status,
      `The node answered ${status}: ${problem.detail ?? problem.code ?? 'no detail'}`,
      {
        retryAfterMs: Number.isFinite(retryAfter) ? retryAfter * 1000 : 0,
      },
    )
  }
}

const checkpointPath = ({ workId, token }: { workId: string; token: string }): string =>
  `/workers/checkpoints/${encodeURIComponent(workId)}?token=${encodeURIComponent(token)}`

/** What a call to a node can end with, other than an answer. */

/** The node answered with a problem, or no node answered (`unreachable`). */
export class NodeError extends Error {
  override readonly name = 'NodeError'
  /** The `code` of the problem; `unreachable`, or `http_500` and the like when there is none. */
  readonly code: string
  /** 0 when no node answered. */
  readonly status: number
  readonly retryAfterMs: number

  constructor(code: string, status: number, message: string, options: { retryAfterMs?: number; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.status = status
    this.retryAfterMs = options.retryAfterMs ?? 0
  }

  /** The same call may well work later. */
  get isPassing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500
  }
}

/** @returns true for a NodeError that is not about the request but about the moment */
export const isPassing = (error: unknown): boolean => error instanceof NodeError && error.isPassing

export const hasCode = (error: unknown, ...codes: string[]): boolean =>
  error instanceof NodeError && codes.includes(error.code)
