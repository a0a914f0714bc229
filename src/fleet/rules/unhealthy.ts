/**
 * unhealthy: a worker that says it is ready, holds nothing and takes nothing for `stuckAfterMs`, while jobs waited all
 * that time and another worker of the pool works. The last condition tells a broken worker from a broken node: when
 * nobody gets jobs, replacing workers mends nothing. It is drained, not terminated, so that a wrong guess costs a boot
 * and no job; one at a time, the next when nobody of the pool boots or drains any more.
 * A worker that takes jobs and fails or returns every one of them is not noticed here.
 */
import type { InstanceRule } from './rule.ts'

const stuckAfterMs = 300_000

export const unhealthy: InstanceRule = ({ instances, load, hearingSince }, plan, now) => {
  const { waiting, paused, waitingSince } = load
  if (paused || waiting === 0 || waitingSince === undefined || plan.ending.size > 0) return []
  if (instances.some(({ state }) => state === 'booting' || state === 'draining')) return []
  const ready = instances.filter(({ state }) => state === 'ready')
  if (!ready.some(({ leases }) => leases > 0)) return []
  return ready
    .filter(({ leases, outside }) => leases === 0 && !outside)
    .filter(
      ({ idleSince }) =>
        idleSince !== undefined && now - Math.max(idleSince, waitingSince, hearingSince) > stuckAfterMs,
    )
    .slice(0, 1)
    .map(({ id }) => ({ kind: 'drain', instanceId: id, reason: 'unhealthy' }))
}
