/** Faults that a test orders: for some calls of an action, instead of or on top of what the front would do. */
import type { Params } from './query.ts'

/**
 * What happens: an error in the words of EC2; the connection reset; no answer ever; an answer that comes late; or the call
 * is carried out and the connection cut before the reply (the launch happened, and nobody knows).
 */
export type FaultKind =
  | { readonly status: number; readonly code: string; readonly message?: string }
  | 'reset'
  | 'hang'
  | 'lose-reply'
  | { readonly delayMs: number }

export interface FaultOrder {
  /** The action, `RunInstances`; `*` for all. */
  readonly action: string
  /** Only calls with such parameters. */
  readonly when?: (params: Params) => boolean
  /** How many calls are hit (default: all until `clearFaults`). */
  readonly times?: number
  /** The share of the calls that are hit, 0 to 1, drawn at random from a fixed seed (default 1). */
  readonly rate?: number
  readonly error: FaultKind
}

export interface Fault {
  readonly order: FaultOrder
  /** How many calls were hit so far. */
  hits: number
}

export class Faults {
  #faults: Fault[] = []
  #seed = 1

  add(order: FaultOrder): Fault {
    const fault = { order, hits: 0 }
    this.#faults.push(fault)
    return fault
  }

  clear(): void {
    this.#faults = []
  }

  /** What befalls this call; of several faults the first one that is due. */
  next(action: string, params: Params): FaultKind | undefined {
    for (const fault of this.#faults) {
      const { order } = fault
      const concerns = (order.action === '*' || order.action === action) && (order.when?.(params) ?? true)
      if (!concerns || fault.hits >= (order.times ?? Number.POSITIVE_INFINITY)) continue
      if (order.rate !== undefined && this.#random() >= order.rate) continue
      fault.hits += 1
      return order.error
    }
    return undefined
  }

  // mulberry32: the same order of hits in every run.
  #random(): number {
    this.#seed = (this.#seed + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#seed ^ (this.#seed >>> 15), 1 | this.#seed)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
