/**
 * Remembers for some minutes which offerings EC2 had no capacity for, so that the next launches try others at once.
 * Kept in memory: another node learns the same from one failed launch.
 */
import type { LaunchFailure, Market } from '../provider.ts'
import { capacityScope } from './aws-errors.ts'

/** An instance type in a subnet. An undefined part is that of the launch template. */
export interface Offering {
  readonly instanceType: string | undefined
  readonly subnetId: string | undefined
}

interface Shortage {
  readonly market?: Market | undefined
  readonly instanceType?: string | undefined
  readonly subnetId?: string | undefined
}

export class UnavailableOfferings {
  readonly #rememberMs: number
  /** By what is short, as text: until when it counts. */
  readonly #shortages = new Map<string, { readonly shortage: Shortage; readonly until: number }>()

  constructor(rememberMs: number) {
    this.#rememberMs = rememberMs
  }

  /** Notes a failure, when it is about capacity. */
  remember({ code, market, instanceType, subnetId }: LaunchFailure, now: number): void {
    const shortage = shortageOf(code, { market, instanceType, subnetId })
    if (shortage === undefined) return
    this.#shortages.set(JSON.stringify(shortage), { shortage, until: now + this.#rememberMs })
  }

  /** The offerings that are not known to be unavailable in this market; possibly none. */
  usable(offerings: readonly Offering[], market: Market, now: number): Offering[] {
    for (const [key, { until }] of this.#shortages) if (until <= now) this.#shortages.delete(key)
    const shortages = [...this.#shortages.values()].map(({ shortage }) => shortage)
    return offerings.filter(offering => !shortages.some(shortage => covers(shortage, offering, market)))
  }
}

function shortageOf(code: string, { market, instanceType, subnetId }: Shortage): Shortage | undefined {
  switch (capacityScope(code)) {
    case 'pool':
      return { market, instanceType, subnetId }
    case 'type':
      return { market, instanceType }
    case 'subnet':
      return { subnetId }
    case 'market':
      return { market }
    case undefined:
      return undefined
  }
}

const covers = (shortage: Shortage, offering: Offering, market: Market): boolean =>
  (shortage.market === undefined || shortage.market === market) &&
  (shortage.instanceType === undefined || shortage.instanceType === offering.instanceType) &&
  (shortage.subnetId === undefined || shortage.subnetId === offering.subnetId)
