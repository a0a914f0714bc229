/**
 * How many instances each capacity pool (type, zone, market) still gives.
 * Why: moto never runs out, and running out in some pools is the daily bread of a fleet.
 */

export type Market = 'spot' | 'on-demand'

export interface Pool {
  readonly type: string
  readonly zone: string
  readonly market: Market
}

export interface CapacityOptions {
  /** The code of the error when nothing is left (default InsufficientInstanceCapacity). */
  readonly code?: string
}

interface Limit {
  readonly of: Partial<Pool>
  readonly code: string
  left: number
}

const insufficient = 'InsufficientInstanceCapacity'

export class Capacity {
  #limits: Limit[] = []

  /**
   * From now on all pools that match share `count` more instances; what ends is not given back. The limit with the most
   * fields counts, of several such the one set last; `set({}, 0)` and `set({ type, zone, market }, Infinity)` leave one pool.
   */
  set(of: Partial<Pool>, count: number, { code = insufficient }: CapacityOptions = {}): void {
    const same = ({ of: other }: Limit): boolean =>
      other.type === of.type && other.zone === of.zone && other.market === of.market
    this.#limits = [{ of, left: count, code }, ...this.#limits.filter(limit => !same(limit))]
  }

  /** Unlimited again everywhere. */
  clear(): void {
    this.#limits = []
  }

  left(pool: Pool): number {
    return this.#limitOf(pool)?.left ?? Number.POSITIVE_INFINITY
  }

  /** Takes up to `count` instances out of a pool. @returns how many there were */
  take(pool: Pool, count: number): number {
    const limit = this.#limitOf(pool)
    const taken = Math.max(0, Math.min(count, limit?.left ?? count))
    if (limit !== undefined) limit.left -= taken
    return taken
  }

  /** For a launch that failed after all. */
  requeue(pool: Pool, count: number): void {
    const limit = this.#limitOf(pool)
    if (limit !== undefined) limit.left += count
  }

  /** Why a pool gives nothing. */
  refusal(pool: Pool): { code: string; message: string } {
    const { type, zone, market } = pool
    const message = `There is no ${market} capacity for instance type ${type} in availability zone ${zone}.`
    return { code: this.#limitOf(pool)?.code ?? insufficient, message }
  }

  #limitOf(pool: Pool): Limit | undefined {
    const matches = this.#limits.filter(({ of }) =>
      (['type', 'zone', 'market'] as const).every(field => of[field] === undefined || of[field] === pool[field]),
    )
    const fields = ({ of }: Limit): number => Object.values(of).filter(value => value !== undefined).length
    return matches.sort((a, b) => fields(b) - fields(a))[0]
  }
}
