/** Streams the blobs of a job from a node into a slot; the agent itself keeps no more than a chunk of them. */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AttemptError, Content } from '../contract/worker-protocol.ts'
import type { Attempt } from './attempt.ts'
import type { NodeClient } from './node-client.ts'
import { hasCode, NodeError } from './node-error.ts'
import type { Slot } from './slot.ts'
import type { BlobPart } from './slot-protocol.ts'

type Blob = Extract<Content, { blob: unknown }>['blob']

export type FetchOutcome =
  | { readonly kind: 'ready' }
  /** The attempt has failed. */
  | { readonly kind: 'failed'; readonly error: AttemptError }
  /** No node hands it out now: the job goes back, no attempt is spent. */
  | { readonly kind: 'away' }
  /** The lease is gone, or the signal has aborted. */
  | { readonly kind: 'lost' }

const tries = 3
const betweenTriesMs = 200

/**
 * Fetches payload and checkpoint of an attempt into the slot, those that are blobs, and checks them. Never throws.
 * A checkpoint that cannot be read is left out, with a line in the log: starting from the beginning is right, too.
 */
export async function fetchBlobs(
  client: NodeClient,
  attempt: Attempt,
  slot: Slot,
  signal: AbortSignal,
): Promise<FetchOutcome> {
  const { payload, checkpoint } = attempt.lease
  for (let tried = 1; ; tried++) {
    const outcome = await fetchBoth()
    if (outcome.kind === 'ready' || outcome.kind === 'lost') return outcome
    slot.discardBlobs()
    if (tried === tries || slot.isDead) return outcome
    await sleep(betweenTriesMs * (tried + Math.random()), undefined, { signal }).catch(() => undefined)
    if (signal.aborted) return { kind: 'lost' }
  }

  async function fetchBoth(): Promise<FetchOutcome> {
    // First, so that it can still be left out.
    if (checkpoint !== undefined && 'blob' in checkpoint) {
      const outcome = await fetchOnce(client, attempt, checkpoint.blob, 'checkpoint', slot, signal)
      if (outcome.kind === 'failed') {
        slot.discardBlobs()
        attempt.addLog([`Starting from the beginning: the checkpoint cannot be read (${outcome.error.message})`])
      } else if (outcome.kind !== 'ready') {
        return outcome
      }
    }
    return 'blob' in payload
      ? await fetchOnce(client, attempt, payload.blob, 'payload', slot, signal)
      : { kind: 'ready' }
  }
}

async function fetchOnce(
  client: NodeClient,
  attempt: Attempt,
  { url, kind, bytes, sha256 }: Blob,
  part: BlobPart,
  slot: Slot,
  signal: AbortSignal,
): Promise<FetchOutcome> {
  try {
    const body = await client.openBlob(url, { signal })
    slot.openBlob(attempt, part, bytes, kind)
    const hash = createHash('sha256')
    let count = 0
    for await (const chunk of body as AsyncIterable<Buffer>) {
      count += chunk.length
      if (count > bytes) break
      hash.update(chunk)
      await slot.writeBlob(chunk)
    }
    if (count === bytes && hash.digest('hex') === sha256) return { kind: 'ready' }
    return unreadable(
      part,
      `The ${part} is not what was stored: ${count === bytes ? 'its SHA-256 differs' : `${count} of ${bytes} bytes came`}`,
    )
  } catch (error) {
    if (signal.aborted || hasCode(error, 'lease_lost')) return { kind: 'lost' }
    if (error instanceof NodeError && !error.isPassing) return unreadable(part, error.message)
    return { kind: 'away' }
  }
}

const unreadable = (part: BlobPart, message: string): FetchOutcome => ({
  kind: 'failed',
  error: { code: `${part}_unreadable`, message },
})
