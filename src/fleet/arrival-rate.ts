/**
 * Measures how many jobs come in: what the backlog grew by and what was finished meanwhile. Recent readings weigh more:
 * half a minute ago counts half. It starts from nothing coming, so that the burst with which a queue begins is not taken
 * for a stream.
 */
const halfLifeMs = 30_000
/** The time over which arrivals that weigh less and less add up. */
const spanS = halfLifeMs / 1000 / Math.LN2

export interface FlowCounters {
  readonly waiting: number
  readonly dueDelayed: number
  readonly running: number
  readonly finishedCount: number
}

export class ArrivalRate {
  #last: { readonly total: number; readonly at: number } | undefined
  #jobs = 0

  /**
   * Takes in one reading.
   * @returns jobs a second, or undefined after the first one
   */
  observe({ waiting, dueDelayed, running, finishedCount }: FlowCounters, now: number): number | undefined {
    const total = waiting + dueDelayed + running + finishedCount
    const last = this.#last
    this.#last = { total, at: now }
    if (last === undefined) return undefined
    const passedMs = Math.max(0, now - last.at)
    const kept = 0.5 ** (passedMs / halfLifeMs)
    // Cancelled jobs and counters that went back leave a backlog without arriving or finishing.
    this.#jobs = this.#jobs * kept + Math.max(0, total - last.total)
    return Math.round((this.#jobs / spanS) * 1000) / 1000
  }
}
