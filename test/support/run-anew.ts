import type { Loop } from '../../src/jobs/loop.ts'

/** Runs a loop from its beginning: a run that is under way may have looked before what the test has just done. */
export async function runAnew(loop: Loop): Promise<void> {
  await loop.runOnce()
  await loop.runOnce()
}
