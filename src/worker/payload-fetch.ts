/** Streams a blob from a node into a slot; the agent itself keeps no more than a chunk of it. */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AttemptError, Content } from '../contract/worker-protocol.ts'
import type { NodeClient } from './node-client.ts'
import { hasCode, NodeError } from './node-error.ts'
import type { Slot } from './slot.ts'

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

/** Fetches a payload into the slot and checks it. Never throws. */
export async function fetchPayload(
  client: NodeClient,
  blob: Blob,
  slot: Slot,
  signal: AbortSignal,
): Promise<FetchOutcome> {
  let outcome: FetchOutcome = { kind: 'away' }
  for (let tried = 1; tried <= tries && !slot.isDead; tried++) {
    if (tried > 1)
      await sleep(betweenTriesMs * (tried - 1 + Math.random()), undefined, { signal }).catch(() => undefined)
    if (signal.aborted) return { kind: 'lost' }
    outcome = await fetchOnce(client, blob, slot, signal)
    if (outcome.kind === 'ready' || outcome.kind === 'lost') return outcome
    slot.discardPayload()
  }
  return outcome
}

async function fetchOnce(
  client: NodeClient,
  { url, kind, bytes, sha256 }: Blob,
  slot: Slot,
  signal: AbortSignal,
): Promise<FetchOutcome> {
  try {
    const body = await client.openBlob(url, { signal })
    slot.openPayload(bytes, kind)
    const hash = createHash('sha256')
    let count = 0
    for await (const chunk of body as AsyncIterable<Buffer>) {
      count += chunk.length
      if (count > bytes) break
      hash.update(chunk)
      await slot.writePayload(chunk)
    }
    if (count === bytes && hash.digest('hex') === sha256) return { kind: 'ready' }
    return unreadable(
      `The payload is not what was submitted: ${count === bytes ? 'its SHA-256 differs' : `${count} of ${bytes} bytes came`}`,
    )
  } catch (error) {
    if (signal.aborted || hasCode(error, 'lease_lost')) return { kind: 'lost' }
    if (error instanceof NodeError && !error.isPassing) return unreadable(error.message)
    return { kind: 'away' }
  }
}

const unreadable = (message: string): FetchOutcome => ({
  kind: 'failed',
  error: { code: 'payload_unreadable', message },
})
