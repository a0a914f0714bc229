/** A timer that a handler's signal ends. */
import { setTimeout } from 'node:timers/promises'

/**
 * Resolves after `ms` milliseconds (at most 2^31 - 1).
 * @throws the signal's reason, at once when it aborts
 */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await setTimeout(ms, undefined, { signal })
  } catch (error) {
    // The timer rejects with an AbortError of its own; who aborted has said why in the reason.
    signal.throwIfAborted()
    throw error
  }
}
