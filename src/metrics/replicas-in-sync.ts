/** Counts the replicas that keep up, from what a primary says with INFO replication. */

/** Redis hears of a replica each second; one that is further behind than this would not do for the next failover. */
const mostLagSeconds = 5

export function replicasInSync(info: string): number {
  return info.split(/\r?\n/).filter(line => {
    if (!/^slave\d+:/.test(line)) return false
    const lag = Number(/(?:,|:)lag=(-?\d+)/.exec(line)?.[1] ?? Number.NaN)
    return /(?:,|:)state=online(?:,|$)/.test(line) && lag >= 0 && lag <= mostLagSeconds
  }).length
}
