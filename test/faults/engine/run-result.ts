/** What a run is asked for, and what comes of it. */
import type { Verdict } from './checker.ts'
import type { Network } from './network.ts'
import type { Scenario } from './scenario.ts'

export interface RunOptions {
  readonly scenarios: readonly Scenario[]
  readonly cli: string
  readonly network?: Network['kind']
  readonly keepLogs: boolean
  /** Of all clients together. */
  readonly jobsPerSecond: number
  readonly say: (line: string) => void
  /** Ends the run; everything that was started is taken away all the same. */
  readonly signal: AbortSignal
}

export interface Outcome {
  readonly name: string
  readonly what: string
  readonly verdict: Verdict
  readonly wholeAfterMs: number
  /** Everything that is wrong, of the verdict, of the scenario's own check and of the run. */
  readonly faults: readonly string[]
  /** What is worth a word, and not wrong. */
  readonly notes: readonly string[]
}

export interface Skipped {
  readonly name: string
  readonly because: string
}

/** A scenario that could not be run to its end. */
export interface Broken {
  readonly name: string
  readonly because: string
}

export interface RunResult {
  readonly network: Network['kind']
  readonly outcomes: readonly Outcome[]
  readonly skipped: readonly Skipped[]
  readonly broken: readonly Broken[]
  /** Where the logs are, when they were kept. */
  readonly logs?: string
}

/** Nothing is wrong, and nothing was left out but what cannot be done here. */
export const isSound = ({ outcomes, broken }: RunResult): boolean =>
  broken.length === 0 && outcomes.every(({ faults }) => faults.length === 0)
