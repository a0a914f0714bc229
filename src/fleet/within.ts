/** How long the loops of the fleet wait for others. */

export { within } from '../within.ts'

/** Longest time that the loops of the fleet wait for one answer of Redis. */
export const redisTimeoutMs = 5000
/** Longest time that a decision waits for one call to the provider, which bounds its calls itself and more tightly. */
export const providerTimeoutMs = 30_000
