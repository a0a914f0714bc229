/** What a run found, before it is summed up. Lists are by round, and rounds of both sides belong together. */

export interface Figures {
  readonly jobsPerRound: number
  readonly elapsedMs: {
    readonly enqueue: readonly number[]
    readonly bullAdd: readonly number[]
    readonly bullAddBulk: readonly number[]
    readonly endToEnd: readonly number[]
    readonly bullWork: readonly number[]
    readonly passThrough: readonly number[]
  }
  /** Redis memory of one job. */
  readonly bytes: {
    readonly waiting: number
    readonly finished: number
    readonly bullWaiting: number
    readonly bullFinished: number
  }
  readonly idleLatenciesMs: readonly number[]
  readonly halfLoad: { readonly jobsPerSecond: number; readonly latenciesMs: readonly number[] }
  readonly hash: {
    readonly nsPerIteration: readonly number[]
    /** Empty when there is no Python. */
    readonly pythonNsPerIteration: readonly number[]
  }
}
