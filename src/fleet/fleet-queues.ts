/** What the fleet needs of the jobs: loads to decide by, and a way to hand back what a lost worker held. */

export interface QueueLoad {
  /** Ready to run now, prioritised ones included, and of the types asked for. */
  readonly waiting: number
  /** Of which types; absent: nobody tells. */
  readonly waitingTypes?: readonly string[]
  /** Delayed, and due within the time that was asked about. */
  readonly dueDelayed: number
  /** Held by workers. */
  readonly running: number
  /** Completions over all time. */
  readonly finishedCount: number
  /** Run time of those completions, summed over all time. */
  readonly busyMs: number
  readonly paused: boolean
}

export interface FleetQueues {
  /** Reads what one queue holds of these types (left out: of all); a queue that was never used is empty. */
  load(queue: string, dueWithinMs: number, types?: readonly string[]): Promise<QueueLoad>
  /** How many jobs each worker holds; a worker that holds none is absent. */
  leasesByWorker(queue: string): Promise<Map<string, number>>
  /**
   * Puts all jobs that a worker holds back to waiting; no attempt is spent.
   * @param wasLost the worker was lost under its jobs, which count that against the day when they have lost too many
   * @returns how many went back; 0 when it holds none (calling twice is safe)
   */
  returnLeasesOf(queue: string, workerId: string, wasLost: boolean): Promise<number>
}
