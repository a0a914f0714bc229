/**
 * Checkpoints on their way to a node: one call at a time for each attempt, the newest bytes first.
 *
 *   keep ──▶ newest ──▶ sent ──kept──▶ answered (with all older ones)
 *              ▲          │ no node, or it cannot now: again, with newer bytes if there are any
 *              └──────────┘
 */

import type { AttemptError, Content } from '../../contract/worker-protocol.ts'
import { Backoff, settledWithin } from '../../retry.ts'
import type { Attempt } from '../attempts/attempt.ts'
import { hasCode, isPassing, type NodeClient, NodeError } from '../node/node-client.ts'

/** What became of a checkpoint, and so of all older ones; nothing when it is kept. */
type Answer = (error?: string) => void

interface Newest {
  readonly bytes: Buffer
  readonly answer: Answer
}

/**
 * What ends a lease, or needs the newest checkpoint, waits for one that is on its way; but not for longer than this.
 */
const keptWithinMs = 10_000

/** Resolves when no checkpoint of the attempt is on its way any more, after 10 s, or when the signal aborts. */
export async function checkpointKept({ checkpointing }: Attempt, signal: AbortSignal): Promise<void> {
  if (checkpointing !== undefined) await settledWithin(checkpointing, keptWithinMs, signal)
}

const leaseIsGone = 'The lease is gone: another worker may run the job'

export class CheckpointUploads {
  readonly #client: NodeClient
  readonly #newest = new Map<Attempt, Newest>()
  readonly #stopping = new AbortController()

  constructor(client: NodeClient) {
    this.#client = client
  }

  /**
   * Begins to send these bytes, in place of older ones that were not sent yet. Sets `attempt.checkpointing` and
   * `attempt.hasSentCheckpoint`.
   */
  keep(attempt: Attempt, bytes: Buffer, answer: Answer): void {
    this.#newest.set(attempt, { bytes, answer })
    attempt.hasSentCheckpoint = true
    attempt.checkpointing ??= this.#send(attempt).finally(() => {
      attempt.checkpointing = undefined
    })
  }

  /** Stops sending: what no node has by now is not kept. */
  stop(): void {
    this.#stopping.abort()
  }

  async #send(attempt: Attempt): Promise<void> {
    const { signal } = this.#stopping
    const backoff = new Backoff(100, 2000)
    for (let next = this.#newest.get(attempt); next !== undefined; next = this.#newest.get(attempt)) {
      const answer = await this.#try(attempt, next.bytes)
      const isOver = signal.aborted || attempt.endReason === 'stopped'
      if (answer === 'again' && !isOver) {
        await backoff.wait(signal)
        continue
      }
      if (this.#newest.get(attempt) === next) this.#newest.delete(attempt)
      if (answer === 'kept') next.answer()
      else next.answer(answer === 'again' ? leaseIsGone : answer)
    }
  }

  /** @returns `kept`, `again`, or in words why not */
  async #try(attempt: Attempt, bytes: Buffer): Promise<'kept' | 'again' | string> {
    try {
      await this.#client.keepCheckpoint(attempt.ref, bytes, { rounds: 1, signal: this.#stopping.signal })
      return 'kept'
    } catch (error) {
      if (hasCode(error, 'lease_lost', 'job_not_found')) return leaseIsGone
      return error instanceof NodeError && !isPassing(error) ? error.message : 'again'
    }
  }
}

/** Uploads values that are too large for a completion, a few at once, until a node has taken them. */
export type UploadOutcome =
  | { readonly kind: 'stored'; readonly content: Content }
  /** The node does not want this value, now or later. */
  | { readonly kind: 'refused'; readonly error: AttemptError }
  /** The lease is gone: no node takes the value. */
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
  async upload(attempt: Attempt, kind: 'bytes' | 'json', bytes: Uint8Array): Promise<UploadOutcome> {
    this.#heldBytes += bytes.length
    if (this.#runningCount >= atOnce) await new Promise<void>(resolve => this.#waiting.push(resolve))
    this.#runningCount += 1
    try {
      return await this.#tryUntilDone(attempt, kind, bytes)
    } finally {
      this.#heldBytes -= bytes.length
      this.#runningCount -= 1
      this.#waiting.shift()?.()
    }
  }

  stop(): void {
    this.#stopping.abort()
  }

  async #tryUntilDone(attempt: Attempt, kind: 'bytes' | 'json', bytes: Uint8Array): Promise<UploadOutcome> {
    const { signal } = this.#stopping
    const backoff = new Backoff(100, 3000)
    while (!signal.aborted && attempt.place !== 'gone') {
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
