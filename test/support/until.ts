/** Waits until a condition holds; fails when it does not in time. */
import { setTimeout as delay } from 'node:timers/promises'

/** Time limits are for what never comes; where others use the machine as well, what comes may take longer. */
const patience = process.env.CI === undefined ? 1 : 3

export async function until(condition: () => boolean | Promise<boolean>, withinMs = 15_000): Promise<void> {
  const deadline = Date.now() + withinMs * patience
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs * patience} ms: ${condition}`)
    await delay(20)
  }
}
