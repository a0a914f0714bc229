/**
 * Which pools an instant fleet launches from: in the order of the allocation strategy, each as far as it has room. What it
 * plans is taken from the capacity at once. Pure but for that.
 */
import { Refusal } from '../reply.ts'
import type { Capacity, Market, Pool } from './capacity.ts'
import type { Prices } from './prices.ts'

export interface Candidate {
  /** Its market is set by the plan. */
  readonly pool: Pool
  /** Units of capacity that one instance counts for. */
  readonly weight: number
  /** The lower the sooner, for `prioritized`. */
  readonly priority: number
  readonly maxUsd: number
}

export interface FleetTarget {
  readonly units: number
  readonly options: {
    readonly strategy: string
    /** Less than this is not launched at all. */
    readonly minUnits: number
    readonly isSingleType: boolean
    readonly isSingleZone: boolean
  }
}

export type FleetTargets = Readonly<Record<Market, FleetTarget>>

export interface Launch<Offer> {
  readonly offer: Offer
  readonly count: number
}

export interface Failure {
  readonly market: Market
  readonly code: string
  readonly message: string
}

type Failed<Offer> = Failure & { readonly offer: Offer }

export function planFleet<Offer extends Candidate>(
  offers: readonly Offer[],
  targets: FleetTargets,
  capacity: Capacity,
  prices: Prices,
): { launches: Launch<Offer>[]; failures: Failed<Offer>[] } {
  const launches: Launch<Offer>[] = []
  const failures: Failed<Offer>[] = []
  for (const market of ['on-demand', 'spot'] as const) {
    const { units, options } = targets[market]
    if (units === 0) continue
    const ofMarket = offers.map(offer => ({ ...offer, pool: { ...offer.pool, market } }))
    const { affordable, tooDear } = split(ofMarket, market, prices)
    failures.push(...tooDear)
    const groups = grouped(ordered(affordable, options.strategy, market, capacity, prices), options)
    for (const group of groups) {
      const planned = fill(group, units, capacity)
      failures.push(...planned.failures)
      if (planned.units > 0 && planned.units >= options.minUnits) {
        launches.push(...planned.launches)
        break
      }
      for (const { offer, count } of planned.launches) capacity.requeue(offer.pool, count)
    }
  }
  return { launches, failures }
}

/** Takes pool after pool until the target is met. */
function fill<Offer extends Candidate>(group: readonly Offer[], units: number, capacity: Capacity) {
  const launches: Launch<Offer>[] = []
  const failures: Failed<Offer>[] = []
  let filled = 0
  for (const offer of group) {
    if (filled >= units) break
    const desired = Math.ceil((units - filled) / offer.weight)
    const count = capacity.take(offer.pool, desired)
    if (count > 0) launches.push({ offer, count })
    if (count < desired) failures.push({ offer, market: offer.pool.market, ...capacity.refusal(offer.pool) })
    filled += count * offer.weight
  }
  return { launches, failures, units: filled }
}

function split<Offer extends Candidate>(offers: readonly Offer[], market: Market, prices: Prices) {
  const isTooDear = ({ pool, maxUsd }: Offer): boolean => market === 'spot' && (prices.priceOf(pool) ?? 0) > maxUsd
  const message = 'The Spot price is above the maximum price of the request.'
  return {
    affordable: offers.filter(offer => !isTooDear(offer)),
    tooDear: offers.filter(isTooDear).map(offer => ({ offer, market, code: 'SpotMaxPriceTooLow', message })),
  }
}

/** @throws Refusal for a strategy that is not covered */
function ordered<Offer extends Candidate>(
  offers: readonly Offer[],
  strategy: string,
  market: Market,
  capacity: Capacity,
  prices: Prices,
): Offer[] {
  const byUsd = ({ pool, weight }: Offer): number => (prices.priceOf(pool) ?? Number.MAX_VALUE) / weight
  const byRoom = ({ pool }: Offer): number => -Math.min(capacity.left(pool), Number.MAX_VALUE)
  const byPriority = ({ priority }: Offer): number => Math.min(priority, Number.MAX_VALUE)
  const strategies: Readonly<Record<string, (offer: Offer) => number>> =
    market === 'spot'
      ? {
          // Of pools that have room the cheapest: those without are passed over while filling.
          'price-capacity-optimized': byUsd,
          'lowest-price': byUsd,
          'capacity-optimized': byRoom,
          'capacity-optimized-prioritized': byPriority,
        }
      : { 'lowest-price': byUsd, prioritized: byPriority }
  const rank = strategies[strategy]
  if (rank === undefined)
    throw new Refusal('NotCovered', `The front does not know the strategy ${strategy} (${market}).`)
  return [...offers].sort((a, b) => rank(a) - rank(b))
}

/** Pools that may be launched together; the groups in the order of their best pool. */
function grouped<Offer extends Candidate>(offers: readonly Offer[], options: FleetTarget['options']): Offer[][] {
  const groups = new Map<string, Offer[]>()
  for (const offer of offers) {
    const { type, zone } = offer.pool
    const key = `${options.isSingleType ? type : ''} ${options.isSingleZone ? zone : ''}`
    groups.set(key, [...(groups.get(key) ?? []), offer])
  }
  return [...groups.values()]
}
