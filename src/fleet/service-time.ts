/**
 * Measures the recent mean run time of a queue's jobs from two counters that only grow (completions and their summed
 * run time): their differences, weighted so that half a minute ago counts half. The first reading gives the mean over
 * all time, so that a node that has just started does not guess.
 */
const halfLifeMs = 30_000

/** What a job is taken to need before any has finished: most are short, and what runs longer says so by running. */
export const firstGuessMs = 500

export interface ServiceCounters {
  readonly finishedCount: number
  readonly busyMs: number
  readonly running: number
}

export class ServiceTime {
  #last: ServiceCounters | undefined
  #finishedAt = 0
  #quietSince: number | undefined
  #count = 0
  #busyMs = 0

  /**
   * Takes in one reading.
   * @returns ms a job; undefined when none has ever finished, and none runs for longer than the first guess
   */
  observe(counters: ServiceCounters, now: number): number | undefined {
    const last = this.#last
    this.#last = counters
    if (last === undefined || counters.finishedCount < last.finishedCount) this.#begin(counters, now)
    else if (counters.finishedCount > last.finishedCount) this.#add(counters, last, now)
    return this.#estimate(counters, now)
  }

  /** The mean over all time weighs as much as one completion: fresh measurements soon outweigh it. */
  #begin({ finishedCount, busyMs }: ServiceCounters, now: number): void {
    this.#count = finishedCount > 0 ? 1 : 0
    this.#busyMs = finishedCount > 0 ? busyMs / finishedCount : 0
    this.#finishedAt = now
    this.#quietSince = undefined
  }

  #add(counters: ServiceCounters, last: ServiceCounters, now: number): void {
    const kept = 0.5 ** ((now - this.#finishedAt) / halfLifeMs)
    this.#count = this.#count * kept + counters.finishedCount - last.finishedCount
    this.#busyMs = this.#busyMs * kept + Math.max(0, counters.busyMs - last.busyMs)
    this.#finishedAt = now
    this.#quietSince = undefined
  }

  /** Long jobs, at first or after short ones: while jobs run and none finishes, a job takes at least as long as that lasts. */
  #estimate({ running }: ServiceCounters, now: number): number | undefined {
    if (running === 0) this.#quietSince = undefined
    else this.#quietSince ??= now
    const measured = this.#count > 0 ? this.#busyMs / this.#count : undefined
    const quietMs = this.#quietSince === undefined ? 0 : now - this.#quietSince
    if (measured !== undefined) return Math.max(measured, quietMs)
    return quietMs > firstGuessMs ? quietMs : undefined
  }
}
