/** Waits until a condition holds; fails when it does not in time. */
import { setTimeout as delay } from 'node:timers/promises'

/**
 * How long a test waits for what must come. It is there for what never comes, and says nothing about how fast something
 * is: on a machine that others use as well, everything takes longer.
 */
export const patienceMs = 240_000

const longestPauseMs = 20

/** Looks often at first, then every 20 ms. */
export async function until(condition: () => boolean | Promise<boolean>, withinMs = patienceMs): Promise<void> {
  const deadline = performance.now() + withinMs
  for (let pauseMs = 1; !(await condition()); pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${condition}`)
    await delay(pauseMs)
  }
}
