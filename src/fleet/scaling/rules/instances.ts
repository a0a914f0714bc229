/** The rules that end instances. Each one sees what those before it end already. */

import type { InstanceView, PoolSnapshot } from '../snapshot.ts'
import type { InstanceRule } from './rule.ts'

/**
 * interrupted: a host that outlives the time at which it was to be taken away is ended, so that the ceiling is exceeded
 * for a bounded time only. By then its worker has handed back what it held. A rebalance names no such time: the worker
 * finishes what it runs, and is ended by the drained rule.
 */
const graceMs = 60_000

export const interrupted: InstanceRule = ({ instances }, plan, now) =>
  instances
    .filter(({ id, state, unmanaged }) => state !== 'terminating' && !unmanaged && !plan.ending.has(id))
    .filter(({ interrupted }) => interrupted?.kind === 'interruption' && now - interrupted.at > graceMs)
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: true, reason: 'interrupted' }))

/**
 * unhealthy: a worker that says it is ready, holds nothing and takes nothing for `stuckAfterMs`, while jobs waited all
 * that time and another worker of the pool works. The last condition tells a broken worker from a broken node: when
 * nobody gets jobs, replacing workers mends nothing. It is drained, not terminated, so that a wrong guess costs a boot
 * and no job; one at a time, the next when nobody of the pool boots or drains any more.
 * A worker that takes jobs and fails or returns every one of them is not noticed here.
 */
const stuckAfterMs = 300_000

export const unhealthy: InstanceRule = ({ instances, load, observedSince }, plan, now) => {
  const { waiting, paused, waitingSince } = load
  if (paused || waiting === 0 || waitingSince === undefined || plan.ending.size > 0) return []
  if (instances.some(({ state }) => state === 'booting' || state === 'draining')) return []
  const ready = instances.filter(({ state }) => state === 'ready')
  if (!ready.some(({ leases }) => leases > 0)) return []
  return ready
    .filter(({ leases, unmanaged }) => leases === 0 && !unmanaged)
    .filter(
      ({ idleSince }) =>
        idleSince !== undefined && now - Math.max(idleSince, waitingSince, observedSince) > stuckAfterMs,
    )
    .slice(0, 1)
    .map(({ id }) => ({ kind: 'drain', instanceId: id, reason: 'unhealthy' }))
}

/**
 * lost-worker: the instance is there but its worker has been silent too long (it hangs, or its network is gone). Its
 * jobs are somebody else's by now, so it is ended by force. Silence only counts while heartbeats could be recorded:
 * time in which Redis or the nodes were away does not count.
 */
export const lostWorker: InstanceRule = ({ instances, silentAfterMs, observedSince }, _plan, now) =>
  instances
    .filter(({ state, unmanaged }) => (state === 'ready' || state === 'draining') && !unmanaged)
    .filter(({ lastSeenAt }) => lastSeenAt !== undefined && now - Math.max(lastSeenAt, observedSince) > silentAfterMs)
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: true, reason: 'lost-worker' }))

/**
 * drained: a draining worker that holds no job is ended. Most have ended by themselves before this rule sees them:
 * `settleMs` gives them the time for it. That no job is lost does not hang on a time: leases are read after the drain was
 * seen, and a claim that was let through before it is looked at once more after it took its lease.
 */
const settleMs = 1000

export const drained: InstanceRule = ({ instances }, plan, now) =>
  instances
    .filter(
      ({ id, state, leases, unmanaged }) => state === 'draining' && leases === 0 && !unmanaged && !plan.ending.has(id),
    )
    .filter(({ drainingSince }) => drainingSince !== undefined && now - drainingSince >= settleMs)
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: false, reason: 'drained' }))

/**
 * idle: the only way in which a pool shrinks, and its hysteresis. A ready worker that holds no job, and has held none
 * for idleTimeoutMs, is drained as long as enough ready workers stay. Booting instances do not count as staying: they
 * may never come up.
 * The most expensive goes first; where a price is missing, Spot before On-Demand, since it may be taken away anyway; then the
 * one that has been idle for longest.
 */
export const idle: InstanceRule = ({ instances, settings }, plan, now) => {
  const ready = instances.filter(({ id, state }) => state === 'ready' && !plan.ending.has(id))
  const surplus = Math.max(0, ready.length - plan.desired)
  const candidates = ready
    .filter(({ leases, unmanaged }) => leases === 0 && !unmanaged)
    .filter(({ idleSince }) => idleSince !== undefined && now - idleSince >= settings.idleTimeoutMs)
  return inOrder(candidates)
    .slice(0, surplus)
    .map(({ id }) => ({ kind: 'drain', instanceId: id, reason: 'idle' }))
}

function inOrder(candidates: readonly InstanceView[]): InstanceView[] {
  const priced = candidates.every(({ hourlyUsd }) => hourlyUsd !== undefined)
  const price = ({ hourlyUsd = 0 }: InstanceView): number => (priced ? hourlyUsd : 0)
  const rank = ({ market }: InstanceView): number => (market === 'spot' ? 0 : 1)
  return [...candidates].sort(
    (a, b) => price(b) - price(a) || rank(a) - rank(b) || (a.idleSince ?? 0) - (b.idleSince ?? 0),
  )
}

/**
 * boot-timeout: an instance from which no worker has registered in time is ended, and its launch counts as failed.
 * As with silence, time in which nobody could register does not count.
 */

/** Whether the time to boot is over: such an instance is ended by this decision, and counts for nothing in it. */
export const isOverdue = (
  { state, launchedAt }: InstanceView,
  { settings, observedSince }: PoolSnapshot,
  now: number,
): boolean => state === 'booting' && now - Math.max(launchedAt, observedSince) > settings.bootTimeoutMs

export const bootTimeout: InstanceRule = (snapshot, _plan, now) =>
  snapshot.instances
    .filter(instance => isOverdue(instance, snapshot, now))
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: true, reason: 'boot-timeout' }))
