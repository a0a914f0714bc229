/** Estimates from counters and times: the arrival rate, the service time and the boot time. Pure: the caller passes the time. */
import type { InstanceView } from '../scaling/snapshot.ts'

/** A reading counts half after this time. */
const halfLifeMs = 30_000
/** The time over which arrivals that weigh less and less add up. */
const spanS = halfLifeMs / 1000 / Math.LN2

export interface FlowCounters {
  readonly waiting: number
  readonly dueDelayed: number
  readonly running: number
  readonly finishedCount: number
}

/**
 * Measures how many jobs come in: what the backlog grew by and what was finished meanwhile. Recent readings weigh more:
 * half a minute ago counts half. It starts from nothing coming, so that the burst with which a queue begins is not taken
 * for a stream.
 */
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

/** What a job is taken to need before any has finished: most are short, and what runs longer says so by running. */
export const firstGuessMs = 500

export interface ServiceCounters {
  readonly finishedCount: number
  readonly busyMs: number
  readonly running: number
}

/**
 * Measures the recent mean run time of a queue's jobs from two counters that only grow (completions and their summed
 * run time): their differences, weighted so that half a minute ago counts half. The first reading gives the mean over
 * all time, so that a node that has just started does not guess.
 */
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

/** Measures how long instances take from their launch to the first sign of life of their worker: the median of the last few. */
const keptCount = 15

export class BootTimes {
  /** Instances that were counted already, as long as they are there. */
  #counted = new Set<string>()
  readonly #samples: number[] = []

  /**
   * Takes in the instances of a pool, each once; those of the last node, too, so that who takes over need not guess.
   * @returns the median in ms, or undefined when none has ever booted
   */
  observe(instances: readonly InstanceView[]): number | undefined {
    const counted = new Set<string>()
    for (const { id, launchedAt, readyAt, unmanaged } of instances) {
      if (readyAt === undefined || unmanaged) continue
      counted.add(id)
      // The clocks of the provider and of this node may differ by some ms.
      if (!this.#counted.has(id)) this.#samples.push(Math.max(0, Math.round(readyAt - launchedAt)))
    }
    this.#counted = counted
    this.#samples.splice(0, Math.max(0, this.#samples.length - keptCount))
    const sorted = [...this.#samples].sort((a, b) => a - b)
    return sorted[Math.floor(sorted.length / 2)]
  }
}
