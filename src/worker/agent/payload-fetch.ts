/** Streams the blobs of a job from a node into a slot; the agent itself keeps no more than a chunk of them. */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Content } from '../../contract/worker-protocol.ts'
import type { Attempt } from '../attempts/attempt.ts'
import { hasCode, type NodeClient, NodeError } from '../node/node-client.ts'
import type { BlobPart } from '../protocol/slot-protocol.ts'
import type { Slot } from '../slots/slot.ts'
import type { FetchOutcome } from '../slots/slot-options.ts'
import { checkpointKept } from './uploads.ts'

type Blob = Extract<Content, { blob: unknown }>['blob']

/** Bytes on their way, and what they have to be. */
interface Opened {
  readonly body: AsyncIterable<Buffer>
  readonly kind: Blob['kind']
  readonly bytes: number
  readonly sha256: string
}

const tries = 3
const betweenTriesMs = 200

/**
 * Fetches payload and checkpoint of an attempt into the slot, those that do not stand in its lease, and checks them.
 * Never throws. A checkpoint that cannot be read is left out, with a line in the log: starting from the one before, or
 * from the beginning, is right, too.
 */
export async function fetchBlobs(
  client: NodeClient,
  attempt: Attempt,
  slot: Slot,
  signal: AbortSignal,
): Promise<FetchOutcome> {
  const { ref } = attempt
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
    if (attempt.isCheckpointFetched) {
      const outcome = await fetchCheckpoint()
      if (outcome.kind === 'failed') {
        slot.discardBlobs()
        // What stands in its lease is older, and the next best.
        attempt.hasSentCheckpoint = false
        const from =
          attempt.isCheckpointFetched || checkpoint === undefined ? 'from the beginning' : 'from the one before'
        attempt.addLog([`Starting ${from}: the checkpoint cannot be read (${outcome.error.message})`])
      } else if (outcome.kind !== 'ready') {
        return outcome
      }
    }
    return 'blob' in payload ? await fetchPayload(payload.blob) : { kind: 'ready' }
  }

  async function fetchPayload({ url, ...blob }: Blob): Promise<FetchOutcome> {
    const open = async (): Promise<Opened> => ({ ...blob, body: await client.openBlob(url, { signal }) })
    return await fetchOnce(open, attempt, 'payload', slot, signal)
  }

  /** The newest, which a slot that has died since may have left: then it is not the one that the lease describes. */
  async function fetchCheckpoint(): Promise<FetchOutcome> {
    await checkpointKept(attempt, signal)
    if (attempt.checkpointing !== undefined) return { kind: signal.aborted ? 'lost' : 'away' }
    const open = async (): Promise<Opened> => ({ ...(await client.openCheckpoint(ref, { signal })), kind: 'bytes' })
    return await fetchOnce(open, attempt, 'checkpoint', slot, signal)
  }
}

async function fetchOnce(
  open: () => Promise<Opened>,
  attempt: Attempt,
  part: BlobPart,
  slot: Slot,
  signal: AbortSignal,
): Promise<FetchOutcome> {
  try {
    const { body, kind, bytes, sha256 } = await open()
    slot.openBlob(attempt, part, { bytes, kind })
    const hash = createHash('sha256')
    let count = 0
    for await (const chunk of body) {
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
