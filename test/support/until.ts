/** Waits until a condition holds; fails when it does not in time. */
import { setTimeout as delay } from 'node:timers/promises'

export async function until(condition: () => boolean | Promise<boolean>, withinMs = 15_000): Promise<void> {
  const deadline = Date.now() + withinMs
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${condition}`)
    await delay(20)
  }
}
