/**
 * What an error of AWS means for us. The SDK names an error by its code; one without an HTTP status never got a reply, so
 * whatever it asked for may have happened.
 */
import { isThrottlingError } from '@smithy/core/retry'
import type { LaunchFailure } from '../provider.ts'

/** mismatch: somebody has used the token already. unknown: it may have happened. refused: it did not, and the same request will fare no better. */
export type ErrorKind = 'throttled' | 'capacity' | 'mismatch' | 'unknown' | 'refused'

/** The second one: what it launched has been terminated since. */
const knownTokenCodes = new Set(['IdempotentParameterMismatch', 'IdempotentInstanceTerminated'])

/**
 * No room, and what for: `pool` is one type in one subnet in one market, `type` one type in one market everywhere,
 * `subnet` whatever is placed there, `market` whatever is bought so.
 */
const capacityScopes: Readonly<Record<string, CapacityScope>> = {
  InsufficientInstanceCapacity: 'pool',
  InsufficientCapacity: 'pool',
  InsufficientHostCapacity: 'pool',
  UnfulfillableCapacity: 'pool',
  SpotMaxPriceTooLow: 'pool',
  // The type is not offered in that zone: as good as no capacity.
  Unsupported: 'pool',
  // The quota of vCPUs goes by family of types and by market.
  VcpuLimitExceeded: 'type',
  InstanceLimitExceeded: 'type',
  InsufficientFreeAddressesInSubnet: 'subnet',
  MaxSpotInstanceCountExceeded: 'market',
}

export type CapacityScope = 'pool' | 'type' | 'subnet' | 'market'

/** What there is no room for; undefined when the code says nothing about room. */
export const capacityScope = (code: string): CapacityScope | undefined =>
  Object.hasOwn(capacityScopes, code) ? capacityScopes[code] : undefined

const isThrottled = (error: unknown): boolean =>
  error instanceof Error && isThrottlingError(error as Parameters<typeof isThrottlingError>[0])

/** A code in the middle of a reply, where the SDK throws no error. */
export const isThrottledCode = (code: string): boolean => isThrottled(Object.assign(new Error(code), { name: code }))

export const codeOf = (error: unknown): string => (error instanceof Error ? error.name : 'Error')

const statusOf = (error: unknown): number | undefined =>
  (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode

export function classify(error: unknown): ErrorKind {
  const code = codeOf(error)
  if (isThrottled(error)) return 'throttled'
  // InsufficientInstanceCapacity is a 500: the code goes before the status.
  if (capacityScope(code) !== undefined) return 'capacity'
  if (knownTokenCodes.has(code)) return 'mismatch'
  // No credentials to be found: nothing was sent.
  if (code === 'CredentialsProviderError') return 'refused'
  const status = statusOf(error)
  return status === undefined || status >= 500 ? 'unknown' : 'refused'
}

/** The error as a part of a launch that failed. */
export function toFailure(error: unknown): LaunchFailure {
  const kind = classify(error)
  const message = error instanceof Error ? error.message : String(error)
  return { code: codeOf(error), message, throttled: kind === 'throttled', capacity: kind === 'capacity' }
}
