/**
 * Plans a launch: which market gets how many, and where each may look. Pure.
 *
 *   1. the Spot share is that of the whole pool: what is there already counts
 *   2. places without room (capacity memory) are left out, per market, unless no place at all is left
 *   3. both markets go into one call when they may look at the same places, else into one each, Spot first
 */
import type { Market } from '../provider.ts'
import type { Place } from './capacity-memory.ts'

/** One call: how many of each market, out of these places. */
export interface Ask {
  readonly spot: number
  readonly onDemand: number
  readonly places: readonly Place[]
}

export interface LaunchPlan {
  readonly count: number
  readonly spotPercent: number
  /** What the pool has already, by market. */
  readonly present: Readonly<Record<Market, number>>
  readonly places: readonly Place[]
  /** Places with room, as far as is known. */
  readonly usable: Readonly<Record<Market, readonly Place[]>>
}

/** @returns the calls to make in this order; none when nothing is wanted */
export function planLaunch({ count, spotPercent, present, places, usable }: LaunchPlan): Ask[] {
  const noSpotAnywhere = usable.spot.length === 0 && usable['on-demand'].length > 0
  const spot = noSpotAnywhere ? 0 : spotShare(count, spotPercent, present)
  const onDemand = count - spot
  const forSpot = orAll(usable.spot, places)
  const forOnDemand = orAll(usable['on-demand'], places)
  const together = spot > 0 && onDemand > 0 && samePlaces(forSpot, forOnDemand)
  const asks: Ask[] = together
    ? [{ spot, onDemand, places: forSpot }]
    : [
        { spot, onDemand: 0, places: forSpot },
        { spot: 0, onDemand, places: forOnDemand },
      ]
  return asks.filter(ask => ask.spot + ask.onDemand > 0)
}

/** What Spot had no room for is bought On-Demand. */
export const fallback = (missing: number, places: readonly Place[], usable: readonly Place[]): Ask => ({
  spot: 0,
  onDemand: missing,
  places: orAll(usable, places),
})

/** How many of `count` new ones go to Spot so that the whole pool comes closest to its share. */
function spotShare(count: number, percent: number, present: Readonly<Record<Market, number>>): number {
  const wanted = Math.round(((present.spot + present['on-demand'] + count) * percent) / 100)
  return Math.max(0, Math.min(count, wanted - present.spot))
}

const orAll = (some: readonly Place[], all: readonly Place[]): readonly Place[] => (some.length > 0 ? some : all)

const samePlaces = (a: readonly Place[], b: readonly Place[]): boolean =>
  a.length === b.length && a.every((place, n) => place === b[n])
