/** Pushes all recorded jobs through a deployment, several at a time, and says how each one went. */
import { DeploymentClient } from './deployment-client.ts'
import { type Outcome, pushJob } from './push-job.ts'
import type { RecordedJob } from './recorded-jobs.ts'

export interface RegressionRun {
  readonly jobs: readonly RecordedJob[]
  /** At least one. */
  readonly urls: readonly string[]
  readonly key: string
  readonly queue: string
  readonly timeoutMs: number
  readonly onOutcome?: (outcome: Outcome) => void
}

const atOnce = 16

/** @returns the outcomes in the order of the jobs */
export async function runRegression(run: RegressionRun): Promise<Outcome[]> {
  const client = new DeploymentClient(run.urls, run.key)
  const outcomes: Outcome[] = []
  const waiting = [...run.jobs.entries()]
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [index, job] = next
      const outcome = await pushJob(job, { client, queue: run.queue, timeoutMs: run.timeoutMs, first: index })
      outcomes[index] = outcome
      run.onOutcome?.(outcome)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work))
  return outcomes
}
