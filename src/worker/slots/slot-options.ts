/** What a pool of slots needs of the worker around it. */
import type { Logger } from 'pino'
import type { AttemptError } from '../../contract/worker-protocol.ts'
import type { Attempt } from '../attempts/attempt.ts'
import type { AttemptTable } from '../attempts/attempt-table.ts'
import type { Slot } from './slot.ts'

export type FetchOutcome =
  | { readonly kind: 'ready' }
  /** The attempt has failed. */
  | { readonly kind: 'failed'; readonly error: AttemptError }
  /** No node hands it out now: requeue the job; no attempt is spent. */
  | { readonly kind: 'away' }
  /** The lease is gone, or the signal has aborted. */
  | { readonly kind: 'lost' }

export interface SlotPoolOptions {
  readonly slots: number
  /** process: every attempt is isolated, also when its handler does not ask for it. */
  readonly isolation: 'slot' | 'process'
  readonly heapMb: number
  /** Memory of a slot with all that it started; 0: any. */
  readonly memoryMb: number
  readonly maxBodyBytes: number
  readonly passEnv: readonly string[]
  readonly handlersFile: string | undefined
  readonly log: Logger
  readonly attempts: AttemptTable
  readonly fetchBlobs: (attempt: Attempt, slot: Slot, signal: AbortSignal) => Promise<FetchOutcome>
}
