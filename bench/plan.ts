/** How much is measured: enough to see through the noise of a shared machine, or just enough to see that it runs. */

export interface Plan {
  /** Rounds of each throughput, ours and BullMQ's in turn; what goes before to warm up is not counted. */
  readonly rounds: number
  readonly jobsPerRound: number
  readonly idleSamples: number
  readonly halfLoadMs: number
  readonly hashRounds: number
}

export const fullPlan: Plan = { rounds: 7, jobsPerRound: 10_000, idleSamples: 300, halfLoadMs: 8000, hashRounds: 5 }

export const quickPlan: Plan = { rounds: 3, jobsPerRound: 3000, idleSamples: 100, halfLoadMs: 3000, hashRounds: 3 }

/** A second or two a figure: what a test runs. */
export const shortPlan: Plan = { rounds: 1, jobsPerRound: 300, idleSamples: 20, halfLoadMs: 500, hashRounds: 1 }

/** The same in both plans, so that they differ in noise only. */
export const shape = {
  connections: 64,
  bodyBytes: 256,
  bulk: 100,
  workerConcurrency: 50,
  hashIterations: 1_000_000,
} as const
