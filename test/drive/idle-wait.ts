/**
 * Finds jobs that wait although a worker that could run them is idle: not in one look, which may fall into the moment
 * between the two, but in all looks over a time. Pure.
 */

export interface Looks {
  readonly at: number
  /** Those that are ready and hold no lease. */
  readonly idleWorkers: readonly {
    readonly workerId: string
    readonly queue: string
    readonly types: readonly string[]
  }[]
  readonly waiting: readonly { readonly workId: string; readonly queue: string; readonly type: string }[]
  /** Queues in which nothing is claimed now. */
  readonly closedQueues: ReadonlySet<string>
}

export interface Overdue {
  readonly workId: string
  readonly sentence: string
}

export class IdleWait {
  readonly #limitMs: number
  /** By Work ID: which workers were idle in every look since. */
  readonly #since = new Map<string, { readonly at: number; readonly workerIds: ReadonlySet<string> }>()

  constructor(limitMs: number) {
    this.#limitMs = limitMs
  }

  /** After a kill all counts anew. */
  disturb(): void {
    this.#since.clear()
  }

  look({ at, idleWorkers, waiting, closedQueues }: Looks): Overdue[] {
    const overdue: Overdue[] = []
    const seen = new Set(waiting.map(({ workId }) => workId))
    for (const workId of this.#since.keys()) if (!seen.has(workId)) this.#since.delete(workId)
    for (const { workId, queue, type } of waiting) {
      const able = idleWorkers.filter(worker => worker.queue === queue && worker.types.includes(type))
      const before = this.#since.get(workId)
      const still = able.filter(({ workerId }) => before?.workerIds.has(workerId))
      if (closedQueues.has(queue) || able.length === 0) this.#since.delete(workId)
      else if (before === undefined || still.length === 0)
        this.#since.set(workId, { at, workerIds: new Set(able.map(({ workerId }) => workerId)) })
      else {
        this.#since.set(workId, { at: before.at, workerIds: new Set(still.map(({ workerId }) => workerId)) })
        const waitedMs = at - before.at
        if (waitedMs > this.#limitMs)
          overdue.push({
            workId,
            sentence: `it waits for ${waitedMs} ms while the worker ${still[0]?.workerId} is idle`,
          })
      }
    }
    return overdue
  }
}
