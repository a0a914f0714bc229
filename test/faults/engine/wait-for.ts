/** Waiting for what other processes do: by looking, with a deadline. */
import { setTimeout as delay } from 'node:timers/promises'
import { nowMs } from './clock.ts'

/**
 * Looks every `everyMs` until there is something, or the time is over.
 * @returns what `look` found, or undefined when the time was over
 */
export async function waitFor<T>(
  look: () => T | undefined | Promise<T | undefined>,
  withinMs: number,
  { everyMs = 50, signal }: { everyMs?: number; signal?: AbortSignal } = {},
): Promise<T | undefined> {
  const deadlineMs = nowMs() + withinMs
  for (;;) {
    signal?.throwIfAborted()
    const found = await look()
    if (found !== undefined || nowMs() >= deadlineMs) return found
    await delay(everyMs, undefined, signal === undefined ? {} : { signal })
  }
}
