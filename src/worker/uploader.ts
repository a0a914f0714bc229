/** Uploads values that are too large for a completion, a few at once, until a node has taken them. */
import type { AttemptError, Content } from '../contract/worker-protocol.ts'
import type { Attempt } from './attempt.ts'
import { Backoff } from './backoff.ts'
import type { NodeClient } from './node-client.ts'
import { hasCode, isPassing, NodeError } from './node-error.ts'

export type UploadOutcome =
  | { readonly kind: 'stored'; readonly content: Content }
  /** The node does not want this value, now or later. */
  | { readonly kind: 'refused'; readonly error: AttemptError }
  /** The lease is gone: nobody waits for the value. */
  | { readonly kind: 'lost' }

const atOnce = 4

export class Uploader {
  readonly #client: NodeClient
  readonly #stopping = new AbortController()
  readonly #waiting: (() => void)[] = []
  #runningCount = 0
  #heldBytes = 0

  constructor(client: NodeClient) {
    this.#client = client
  }

  /** Bytes that no node has yet. */
  get heldBytes(): number {
    return this.#heldBytes
  }

  /** Uploads a value; tries until a node has answered for good, or the uploader stops (`lost`). Never throws. */
  async upload(
    attempt: Attempt,
    kind: 'bytes' | 'json',
    bytes: Uint8Array,
    isWanted: () => boolean,
  ): Promise<UploadOutcome> {
    this.#heldBytes += bytes.length
    if (this.#runningCount >= atOnce) await new Promise<void>(resolve => this.#waiting.push(resolve))
    this.#runningCount += 1
    try {
      return await this.#tryUntilDone(attempt, kind, bytes, isWanted)
    } finally {
      this.#heldBytes -= bytes.length
      this.#runningCount -= 1
      this.#waiting.shift()?.()
    }
  }

  stop(): void {
    this.#stopping.abort()
  }

  async #tryUntilDone(
    attempt: Attempt,
    kind: 'bytes' | 'json',
    bytes: Uint8Array,
    isWanted: () => boolean,
  ): Promise<UploadOutcome> {
    const { signal } = this.#stopping
    const backoff = new Backoff(100, 3000)
    while (!signal.aborted && isWanted()) {
      try {
        return { kind: 'stored', content: await this.#client.upload(attempt.ref, kind, bytes, { signal }) }
      } catch (error) {
        if (signal.aborted || hasCode(error, 'lease_lost', 'job_not_found')) break
        if (error instanceof NodeError && !isPassing(error)) return refused(error, bytes.length)
        await backoff.wait(signal)
      }
    }
    return { kind: 'lost' }
  }
}

function refused(error: NodeError, byteCount: number): UploadOutcome {
  const code = error.status === 413 ? 'result_too_large' : 'result_refused'
  return {
    kind: 'refused',
    error: { code, message: `The value of ${byteCount} bytes was not accepted: ${error.message}`, retryable: false },
  }
}
