/**
 * Remembers for some minutes where there was no room, so that the next launches look elsewhere at once. In memory: another
 * node pays one failed launch to learn the same.
 */
import type { LaunchFailure, Market } from '../provider.ts'
import { capacityScope } from './aws-errors.ts'

/** A place to launch into; undefined: whatever the launch template says. */
export interface Place {
  readonly instanceType: string | undefined
  readonly subnetId: string | undefined
}

interface Shortage {
  readonly market?: Market | undefined
  readonly instanceType?: string | undefined
  readonly subnetId?: string | undefined
}

export class CapacityMemory {
  readonly #rememberMs: number
  /** By what is short, as text: until when it is believed. */
  readonly #shortages = new Map<string, { readonly shortage: Shortage; readonly until: number }>()

  constructor(rememberMs: number) {
    this.#rememberMs = rememberMs
  }

  /** Takes note of a failure, when it is about room. */
  remember({ code, market, instanceType, subnetId }: LaunchFailure, now: number): void {
    const shortage = shortageOf(code, { market, instanceType, subnetId })
    if (shortage === undefined) return
    this.#shortages.set(JSON.stringify(shortage), { shortage, until: now + this.#rememberMs })
  }

  /** The places that are not known to be without room in this market; possibly none. */
  usable(places: readonly Place[], market: Market, now: number): Place[] {
    for (const [key, { until }] of this.#shortages) if (until <= now) this.#shortages.delete(key)
    const shortages = [...this.#shortages.values()].map(({ shortage }) => shortage)
    return places.filter(place => !shortages.some(shortage => covers(shortage, place, market)))
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

const covers = (shortage: Shortage, place: Place, market: Market): boolean =>
  (shortage.market === undefined || shortage.market === market) &&
  (shortage.instanceType === undefined || shortage.instanceType === place.instanceType) &&
  (shortage.subnetId === undefined || shortage.subnetId === place.subnetId)
