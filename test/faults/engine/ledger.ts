/** Every fact of a run, sorted by the job that it is about. Decides nothing: the checker does. */
import type { Accepted, Fact, Failed, GivenUp } from './facts.ts'

/** One handing-out of one job's result. */
export interface Handing {
  readonly client: string
  readonly askedMs: number
  readonly atMs: number
  readonly value: unknown
  /** Of a pull under a lease. */
  readonly leaseId?: string
  readonly leaseMs?: number
  /** When its ack was answered. */
  ackedMs?: number
}

export interface JobRecord {
  readonly workId: string
  /** The scenario in which it was heard of first. */
  readonly scenario: string
  /** Empty: nobody was told of this job (the answer got lost). Several: the same key was sent again. */
  readonly accepted: Accepted[]
  readonly handings: Handing[]
}

export class Ledger {
  readonly jobs = new Map<string, JobRecord>()
  /** Accepted PUTs, failed calls and given-up PUTs by scenario, in the order in which they were heard of. */
  readonly accepted = new Map<string, Accepted[]>()
  readonly failed = new Map<string, Failed[]>()
  readonly givenUp = new Map<string, GivenUp[]>()
  readonly #waiting = new Set<string>()
  #scenario = ''

  /** What comes from now on belongs to this scenario, unless its job was heard of before. */
  begin(scenario: string): void {
    this.#scenario = scenario
  }

  /** Work IDs that were accepted and whose result nobody was handed yet. */
  get waiting(): ReadonlySet<string> {
    return this.#waiting
  }

  note(facts: readonly Fact[]): void {
    for (const fact of facts) this.#note(fact)
  }

  #note(fact: Fact): void {
    switch (fact.kind) {
      case 'accepted': {
        const job = this.#job(fact.workId)
        job.accepted.push(fact)
        if (job.handings.length === 0) this.#waiting.add(fact.workId)
        return void listOf(this.accepted, this.#scenario).push(fact)
      }
      case 'failed':
        return void listOf(this.failed, this.#scenario).push(fact)
      case 'givenUp':
        return void listOf(this.givenUp, this.#scenario).push(fact)
      case 'handedOut': {
        const { client, askedMs, atMs, leaseId, leaseMs } = fact
        const lease = leaseId === undefined || leaseMs === undefined ? {} : { leaseId, leaseMs }
        for (const [workId, value] of fact.results) {
          this.#job(workId).handings.push({ client, askedMs, atMs, value, ...lease })
          this.#waiting.delete(workId)
        }
        return
      }
      case 'acked':
        for (const workId of fact.workIds) {
          const handing = this.#job(workId).handings.find(({ leaseId }) => leaseId === fact.leaseId)
          if (handing !== undefined) handing.ackedMs = fact.atMs
        }
    }
  }

  #job(workId: string): JobRecord {
    let job = this.jobs.get(workId)
    if (job === undefined) {
      job = { workId, scenario: this.#scenario, accepted: [], handings: [] }
      this.jobs.set(workId, job)
    }
    return job
  }
}

function listOf<T>(lists: Map<string, T[]>, key: string): T[] {
  let list = lists.get(key)
  if (list === undefined) {
    list = []
    lists.set(key, list)
  }
  return list
}
