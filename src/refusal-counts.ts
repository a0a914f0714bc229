/** What this node refused since it was last asked, for its metrics. */

export const refusalNames = ['FailedLogins', 'RefusedJoins', 'ThrottledRequests'] as const
export type RefusalName = (typeof refusalNames)[number]

export class Refusals {
  readonly #counts = new Map<RefusalName, number>()

  add(name: RefusalName): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1)
  }

  /** All of them, also those of which there are none; then it counts from zero. */
  take(): Record<RefusalName, number> {
    const taken = Object.fromEntries(refusalNames.map(name => [name, this.#counts.get(name) ?? 0]))
    this.#counts.clear()
    return taken as Record<RefusalName, number>
  }
}
