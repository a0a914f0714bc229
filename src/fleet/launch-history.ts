/**
 * Notices launches that fail: a call that is refused, an instance that ends before its worker lasted, or one whose
 * worker never came. All instances of one decision count as one failure. A worker launched since the last failure that
 * lasts for `lastingMs` shows that launches are sound again.
 * Kept in memory: another node that takes over starts without a grudge, and pays at most one failed launch to learn.
 */
import type { Instance } from './providers/provider.ts'
import type { InstanceView, LaunchFailures } from './snapshot.ts'

const lastingMs = 10_000
const errorLength = 300

interface Sighting {
  readonly decisionId: string
  readonly launchedAt: number
  /** It was told to end or to drain: that it ends is no failure. */
  expected: boolean
}

export class LaunchHistory {
  readonly #seen = new Map<string, Sighting>()
  readonly #failedDecisions = new Set<string>()
  #failures: LaunchFailures = { count: 0, lastAt: 0 }

  get failures(): LaunchFailures {
    return this.#failures
  }

  /** Compares what is there with what was there before. */
  observe(instances: readonly Instance[], views: readonly InstanceView[], now: number): void {
    const states = new Map(views.map(view => [view.id, view]))
    const present = new Set(instances.map(({ id }) => id))
    for (const [id, { decisionId, launchedAt, expected }] of this.#seen) {
      if (present.has(id)) continue
      this.#seen.delete(id)
      if (!expected && now - launchedAt < lastingMs) this.failed(decisionId, now)
    }
    for (const { id, decisionId, launchedAt } of instances) this.launched(id, decisionId, launchedAt)
    for (const [id, sighting] of this.#seen) {
      const view = states.get(id)
      if (view?.state === 'draining' || view?.state === 'terminating') sighting.expected = true
      if (view?.state === 'ready' && this.#isProof(view, now)) this.#reset()
    }
  }

  /** Remembers an instance from its launch on, so that one that ends before the next look is missed. */
  launched(id: string, decisionId: string, launchedAt: number): void {
    if (!this.#seen.has(id)) this.#seen.set(id, { decisionId, launchedAt, expected: false })
  }

  /** Somebody tells the instance to end: that is no failure, whenever it ends. */
  ending(id: string): void {
    const sighting = this.#seen.get(id)
    if (sighting !== undefined) sighting.expected = true
  }

  /** The launch of this decision came to nothing. @param error what was said, cut to a line */
  failed(decisionId: string, now: number, error?: string): void {
    if (this.#failedDecisions.has(decisionId)) return
    this.#failedDecisions.add(decisionId)
    const said = error === undefined ? {} : { lastError: error.replaceAll(/\s+/g, ' ').slice(0, errorLength) }
    this.#failures = { count: this.#failures.count + 1, lastAt: now, ...said }
  }

  /** The instance never got a worker: its launch failed. */
  neverBooted(id: string, now: number): void {
    const sighting = this.#seen.get(id)
    if (sighting !== undefined) this.failed(sighting.decisionId, now)
    this.ending(id)
  }

  #isProof({ launchedAt, readyAt }: InstanceView, now: number): boolean {
    const { count, lastAt } = this.#failures
    return count > 0 && launchedAt >= lastAt && readyAt !== undefined && now - readyAt >= lastingMs
  }

  #reset(): void {
    this.#failures = { count: 0, lastAt: 0 }
    this.#failedDecisions.clear()
  }
}
