/**
 * Checkpoints on their way to a node: one call at a time for each attempt, the newest bytes first.
 *
 *   keep ──▶ newest ──▶ sent ──kept──▶ answered (with all older ones)
 *              ▲          │ no node, or it cannot now: again, with newer bytes if there are any
 *              └──────────┘
 */
import type { Attempt } from './attempt.ts'
import { Backoff, settledWithin } from './backoff.ts'
import type { NodeClient } from './node-client.ts'
import { hasCode, isPassing, NodeError } from './node-error.ts'

/** What became of a checkpoint, and so of all older ones; nothing when it is kept. */
type Answer = (error?: string) => void

interface Newest {
  readonly bytes: Buffer
  readonly answer: Answer
}

/** What ends a lease, or needs the newest checkpoint, waits for one that is on its way; but not for longer than this. */
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
      const isOver = signal.aborted || attempt.verdict === 'stopped'
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
