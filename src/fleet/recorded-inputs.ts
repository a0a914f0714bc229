/**
 * What a decision saw, as it is kept in Redis: plain while it is small, compressed above some kB, so that the journal of a
 * pool with hundreds of instances stays a few MB.
 */
import { deflateSync, inflateSync } from 'node:zlib'
import type { PoolSnapshot } from './snapshot.ts'

/** Plain, or deflated and in base64. */
export type RecordedInputs = PoolSnapshot | { readonly deflated: string }

const plainLength = 4096

export function packInputs(inputs: PoolSnapshot): RecordedInputs {
  const text = JSON.stringify(inputs)
  return text.length <= plainLength ? inputs : { deflated: deflateSync(text).toString('base64') }
}

export function unpackInputs(recorded: RecordedInputs): PoolSnapshot {
  if (!('deflated' in recorded)) return recorded
  return JSON.parse(inflateSync(Buffer.from(recorded.deflated, 'base64')).toString()) as PoolSnapshot
}
