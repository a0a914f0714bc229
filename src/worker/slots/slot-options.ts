/** What a pool of slots needs of the worker around it, and what it tells it. */
import type { Logger } from 'pino'
import type { Attempt, Outcome } from '../agent/attempt.ts'
import type { FetchOutcome } from '../agent/payload-fetch.ts'
import type { Slot, SlotEvents } from './slot.ts'

export interface SlotPoolEvents {
  readonly onOutcome: (attempt: Attempt, outcome: Outcome) => void
  /** These will not start here: requeue them; no attempt is spent. */
  readonly onRequeue: (attempts: Attempt[]) => void
  /** These are over and need no report: stopped, or their lease was lost. */
  readonly onForgotten: (attempts: Attempt[]) => void
  /** The prefetch may have grown. */
  readonly onRoom: () => void
  readonly onUpdate: (attempt: Attempt) => void
  readonly onCheckpoint: SlotEvents['onCheckpoint']
}

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
  readonly events: SlotPoolEvents
  /** How long a lease holds between two heartbeats. */
  readonly leaseMs: () => number
  /** False when the lease has run out, so that the job must not start. */
  readonly isLeaseGood: (attempt: Attempt) => boolean
  /** True when the worker holds nothing but this job, as far as the nodes know. */
  readonly isOnlyLease: (attempt: Attempt) => boolean
  readonly fetchBlobs: (attempt: Attempt, slot: Slot, signal: AbortSignal) => Promise<FetchOutcome>
}
