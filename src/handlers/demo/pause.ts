/**
 * Lets a long computation share its thread: cut into short steps, it calls `step` after each, and once a slice of time
 * is used up, progress is told, the event loop has its turn (messages, timers), and an abort ends the computation.
 */
import { setImmediate, setTimeout } from 'node:timers/promises'
import type { HandlerContext } from '../define-handler.ts'

/** Long enough that yielding costs nothing, short enough that a cancel is felt at once. */
const sliceMs = 15

export class Pacer {
  readonly #context: Pick<HandlerContext, 'progress' | 'signal'>
  #sliceStartedMs = performance.now()

  /** @throws the signal's reason when it has aborted already */
  constructor(context: Pick<HandlerContext, 'progress' | 'signal'>) {
    context.signal.throwIfAborted()
    this.#context = context
  }

  /**
   * To be awaited after each step of work, which should take a small part of 15 ms.
   * @param fraction how much is done, from 0 to 1
   * @throws the signal's reason
   */
  async step(fraction: number): Promise<void> {
    if (performance.now() - this.#sliceStartedMs < sliceMs) return
    this.#context.progress(fraction)
    await setImmediate()
    this.#context.signal.throwIfAborted()
    this.#sliceStartedMs = performance.now()
  }
}

/** A timer that a handler's signal ends. */

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
