/**
 * What instances cost in the tests, in USD an hour: fixtures, near to what us-east-1 asked, not to be kept up to date.
 * Why: moto's Spot price is 0.00001 everywhere, and it has no Pricing service.
 */
import type { Pool } from './capacity.ts'

interface Fixture {
  readonly onDemandUsd: number
  readonly vcpu: number
  readonly memoryGib: number
}

const fixtures: Readonly<Record<string, Fixture>> = {
  't3.micro': { onDemandUsd: 0.0104, vcpu: 2, memoryGib: 1 },
  't3.small': { onDemandUsd: 0.0208, vcpu: 2, memoryGib: 2 },
  't3.medium': { onDemandUsd: 0.0416, vcpu: 2, memoryGib: 4 },
  'm5.large': { onDemandUsd: 0.096, vcpu: 2, memoryGib: 8 },
  'm6i.large': { onDemandUsd: 0.096, vcpu: 2, memoryGib: 8 },
  'm7g.large': { onDemandUsd: 0.0816, vcpu: 2, memoryGib: 8 },
  'c5.large': { onDemandUsd: 0.085, vcpu: 2, memoryGib: 4 },
  'c6i.large': { onDemandUsd: 0.085, vcpu: 2, memoryGib: 4 },
  'c6i.xlarge': { onDemandUsd: 0.17, vcpu: 4, memoryGib: 8 },
  'c7g.large': { onDemandUsd: 0.0725, vcpu: 2, memoryGib: 4 },
  'c7g.xlarge': { onDemandUsd: 0.145, vcpu: 4, memoryGib: 8 },
}

/** Spot: this share of the On-Demand price, by the letter of the zone. */
const spotShares: Readonly<Record<string, number>> = { a: 0.36, b: 0.33, c: 0.4 }

export class Prices {
  readonly #set = new Map<string, number>()

  clear(): void {
    this.#set.clear()
  }

  /** Sets a price in USD an hour; without a zone for all zones of the market. */
  set({ type, zone, market }: Omit<Pool, 'zone'> & { readonly zone?: string }, usd: number): void {
    this.#set.set(`${market} ${type} ${zone ?? '*'}`, usd)
  }

  /** USD an hour; undefined for a type or a zone that has no price. */
  priceOf({ type, zone, market }: Pool): number | undefined {
    const set = this.#set.get(`${market} ${type} ${zone}`) ?? this.#set.get(`${market} ${type} *`)
    const onDemand = this.#set.get(`on-demand ${type} *`) ?? fixtures[type]?.onDemandUsd
    if (set !== undefined || onDemand === undefined) return set
    if (market === 'on-demand') return onDemand
    const share = spotShares[zone.at(-1) ?? '']
    return share === undefined ? undefined : Math.round(onDemand * share * 1e6) / 1e6
  }

  /** Types that have a price, with what else the Pricing service says of them. */
  types(): { type: string; vcpu: number; memoryGib: number }[] {
    const set = [...this.#set.keys()].map(key => key.split(' ')[1] ?? '')
    return [...new Set([...Object.keys(fixtures), ...set])].map(type => {
      const { vcpu = 2, memoryGib = 4 } = fixtures[type] ?? {}
      return { type, vcpu, memoryGib }
    })
  }

  zonesOf(region: string): string[] {
    return Object.keys(spotShares).map(letter => region + letter)
  }
}
