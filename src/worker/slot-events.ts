/** What a slot needs to start, and what it tells its owner. */
import type { Attempt, Outcome } from './attempt.ts'
import type { Slot } from './slot.ts'

export interface SlotEvents {
  /** The attempt has left the slot. The bytes of its value are only good until this returns: keep a copy. */
  readonly onOutcome: (attempt: Attempt, outcome: Outcome) => void
  /** Room in the slot: a job has ended, or all were given back. */
  readonly onChange: (slot: Slot) => void
  /** These were in the slot but have not started; they may run elsewhere. */
  readonly onUnstarted: (attempts: Attempt[]) => void
  /** After it no other event comes. `hadJob`: a job was running. */
  readonly onDeath: (slot: Slot, reason: string, hadJob: boolean) => void
  /** The attempt has new log lines or progress. */
  readonly onUpdate: (attempt: Attempt) => void
  /** The attempt leaves these bytes for the next one; they are the receiver's. `answer` is to be called once it is known. */
  readonly onCheckpoint: (attempt: Attempt, bytes: Buffer, answer: (error?: string) => void) => void
}

export interface SlotOptions {
  readonly handlersFile: string | undefined
  readonly heapMb: number
  /** Largest value or checkpoint. */
  readonly maxBodyBytes: number
  readonly passEnv: readonly string[]
  readonly events: SlotEvents
}
