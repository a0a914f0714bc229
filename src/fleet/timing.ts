/** What the loops of the fleet share: how they run, and how long they wait for others. */

/** They run at start and at slightly different times on each node. A failure of one is an error: nothing scales meanwhile. */
export const fleetLoop = { runsAtStart: true, jitter: true, failureLevel: 'error' } as const

/** Longest time that the loops of the fleet wait for one answer of Redis. */
export const redisTimeoutMs = 5000
/** Longest time that a decision waits for one call to the provider, which bounds its calls itself and more tightly. */
export const providerTimeoutMs = 30_000
