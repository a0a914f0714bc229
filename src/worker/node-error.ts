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
