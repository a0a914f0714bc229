/**
 * What a scaling decision sees of one pool, and what it answers. Plain data that survives JSON, so that a recorded
 * snapshot gives the same decision again. Times are milliseconds since the epoch.
 */
import type { PoolSettings } from '../../settings/settings.ts'
import type { ReasonName } from './reasons.ts'

/**
 * booting: launched, its worker has not registered yet. ready: its worker takes jobs. draining: its worker takes no
 * more jobs and will end. terminating: told to end.
 */
export type InstanceState = 'booting' | 'ready' | 'draining' | 'terminating'

export interface InstanceView {
  readonly id: string
  readonly state: InstanceState
  readonly launchedAt: number
  readonly slots: number
  /** Jobs that its worker holds now. */
  readonly leases: number
  readonly readyAt?: number
  /** Absent while it holds a job, and before it is ready. */
  readonly idleSince?: number
  readonly lastSeenAt?: number
  readonly drainingSince?: number
  /** What it is and what it costs, as far as the provider knows. */
  readonly market?: 'spot' | 'on-demand'
  readonly instanceType?: string
  readonly zone?: string
  readonly hourlyUsd?: number
  /** Its host is being taken away: it drains, and counts neither as capacity nor against the ceiling. */
  readonly interrupted?: Interruption
  /** A worker that somebody else started: it counts as capacity, and is not ours to end. */
  readonly unmanaged?: true
}

/** interruption: the host goes at that time. rebalance: announced at that time to be at risk; it may stay for long. */
export interface Interruption {
  readonly kind: 'interruption' | 'rebalance'
  readonly at: number
}

export interface PoolLoad {
  /** Ready to run now, prioritised ones included. */
  readonly waiting: number
  /** Delayed, and due within the target wait. */
  readonly dueDelayed: number
  /** Held by workers. */
  readonly running: number
  readonly paused: boolean
  /** Recent mean run time of a job; absent as long as none has ever been measured. */
  readonly serviceMs?: number
  /** Recent mean of jobs that came in; absent until measured. */
  readonly arrivalsPerSecond?: number
  /** Since when every reading found jobs waiting that may be claimed; absent when none wait. */
  readonly waitingSince?: number
}

/** Launches in a row that brought up no lasting worker. */
export interface LaunchFailures {
  readonly count: number
  readonly lastAt: number
  /** What the last refused launch said. */
  readonly lastError?: string
}

export interface PoolSnapshot {
  readonly queue: string
  readonly settings: PoolSettings
  readonly load: PoolLoad
  readonly instances: readonly InstanceView[]
  readonly failures: LaunchFailures
  /** Recent median from the launch of an instance to the first sign of life of its worker; absent until measured. */
  readonly bootMs?: number
  /** A worker that was not heard of for this long is lost. */
  readonly silentAfterMs: number
  /** Since when heartbeats could be recorded without a break: silence before that does not count. */
  readonly observedSince: number
}

export type Action =
  | { readonly kind: 'launch'; readonly count: number; readonly reason: ReasonName }
  | { readonly kind: 'drain'; readonly instanceId: string; readonly reason: ReasonName }
  | { readonly kind: 'terminate'; readonly instanceId: string; readonly force: boolean; readonly reason: ReasonName }

export interface Decision {
  /** How many workers the pool should have. */
  readonly desired: number
  readonly actions: readonly Action[]
  /** The rule that had the last word on the size. */
  readonly reason: ReasonName
  /** Why the pool has its size, with the numbers. */
  readonly explanation: string
}
