/**
 * Which decisions the journal keeps: those that do something, and those whose reason is news. Short jobs that come one by one make
 * "no work" and "one job" alternate each second; such flips change nothing, and a reader would find nothing else.
 */

/** A reason that was journaled less than this ago is no news. */
export const newsAfterMs = 60_000

export class ReasonNews {
  /** By queue: the reason that was journaled last, and when each reason was. */
  readonly #pools = new Map<string, { lastTold: string; readonly toldAt: Map<string, number> }>()

  /**
   * Takes note of a decision.
   * @returns whether it is to be journaled
   */
  observe(
    queue: string,
    decision: { readonly reason: string; readonly actions: readonly unknown[] },
    now: number,
  ): boolean {
    const { reason, actions } = decision
    const pool = this.#pools.get(queue) ?? { lastTold: '', toldAt: new Map<string, number>() }
    this.#pools.set(queue, pool)
    const isFresh = now - (pool.toldAt.get(reason) ?? Number.NEGATIVE_INFINITY) < newsAfterMs
    if (actions.length === 0 && (pool.lastTold === reason || isFresh)) return false
    pool.lastTold = reason
    pool.toldAt.set(reason, now)
    return true
  }

  /** Another node may have journaled since. */
  clear(): void {
    this.#pools.clear()
  }
}
