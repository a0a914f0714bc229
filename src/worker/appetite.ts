/** How many more jobs a worker should hold. Pure. */

/** Jobs up to this duration are claimed ahead of time and sent to a slot several at once. */
export const shortJobMs = 50
/** A slot whose job runs longer than this counts for nothing until it ends. */
export const longRunMs = 200
/** Work that a worker holds ahead, when its jobs are short. */
const aheadMs = 200
const mostHeld = 500

export interface AppetiteSnapshot {
  /** Slots that can take jobs and do not run a long one. */
  readonly openSlots: number
  /** Jobs that these slots have or will get: buffered, waiting in a slot or running there. */
  readonly heldCount: number
  /** Expected duration of a job; Infinity when unknown. */
  readonly expectedMs: number
}

/** @returns 0 or more; long or unknown jobs are never claimed ahead, a free slot is needed for each */
export function appetite({ openSlots, heldCount, expectedMs }: AppetiteSnapshot): number {
  const target =
    expectedMs > shortJobMs
      ? openSlots
      : Math.min(mostHeld, Math.ceil((openSlots * aheadMs) / Math.max(expectedMs, 0.01)))
  return Math.max(0, target - heldCount)
}
