/**
 * Watches the Sentinel of this host for a belief that would do harm after a partition.
 *
 * Sentinel makes a server a replica again that it knows as one and that reports itself as primary, once it has reported
 * so for 8 s and Sentinel has heard nothing else. It counts from the last INFO that it read. When that was read just
 * after a switch, from a primary whose role had just been taken, and the host was then cut off, the 8 s are long over
 * when the host is back. If the others have made the same server primary meanwhile, this Sentinel reads "primary" and
 * makes it a replica at once, half a second before it hears of their vote: what was acknowledged during the partition
 * would be lost.
 *
 * A Sentinel that reaches no majority can do nothing else. A restarted one knows nothing of such reports, and waits.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { toMap } from '../../redis/connect/ask-once.ts'
import { ask, type Target } from './probe.ts'
import { majorityOf } from './replication-group.ts'

export interface SentinelBelief {
  /** Sentinels that it reaches, itself included. */
  readonly reaches: number
  /** Addresses of replicas that reported themselves as primary when it last asked them. */
  readonly claimants: readonly string[]
  /** It leads a failover: then it had a majority a moment ago. */
  readonly isLeading: boolean
}

/** @throws when it does not answer in time, or watches nothing of this name */
export async function askBelief(sentinel: Target, name: string, withinMs: number): Promise<SentinelBelief> {
  return await ask(sentinel, withinMs, async client => {
    const list = async (what: string): Promise<Map<string, string>[]> =>
      ((await client.call('SENTINEL', what, name)) as unknown[]).map(toMap)
    const [others, replicas, master] = await Promise.all([
      list('SENTINELS'),
      list('REPLICAS'),
      client.call('SENTINEL', 'MASTER', name).then(toMap),
    ])
    return {
      reaches: 1 + others.filter(other => !/_down/.test(other.get('flags') ?? '')).length,
      claimants: replicas.filter(of => of.get('role-reported') === 'master').map(of => of.get('ip') ?? ''),
      isLeading: /failover_in_progress/.test(master.get('flags') ?? ''),
    }
  })
}

/** Whether it must forget what it believes before its host is back among the others. */
export const isStale = ({ reaches, claimants, isLeading }: SentinelBelief, hostCount: number): boolean =>
  !isLeading && reaches < majorityOf(hostCount) && claimants.length > 0

export interface StaleSentinelWatch {
  readonly sentinel: Target
  readonly name: string
  readonly hostCount: number
  readonly signal: AbortSignal
  /** Restarts the Sentinel. */
  readonly onStale: (belief: SentinelBelief) => Promise<void>
}

/** Twice in a row, and still well within the 8 s that pass after the others are seen down. */
const lookEveryMs = 1500
const answerMs = 1000

/** Looks until the signal aborts. Never rejects. */
export async function watchForStaleSentinel(watch: StaleSentinelWatch): Promise<void> {
  const { sentinel, name, hostCount, signal, onStale } = watch
  for (let wasStale = false; !signal.aborted; ) {
    await delay(lookEveryMs, undefined, { signal }).catch(() => undefined)
    // One that does not answer is starting, or is brought back by its supervisor.
    const belief = await askBelief(sentinel, name, answerMs).catch(() => undefined)
    const isNow = belief !== undefined && isStale(belief, hostCount)
    if (isNow && wasStale && !signal.aborted) await onStale(belief)
    wasStale = isNow && !wasStale
  }
}
