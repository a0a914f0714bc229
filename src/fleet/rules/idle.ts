/**
 * idle: the only way in which a pool shrinks, and its hysteresis. A ready worker that holds no job, and has held none
 * for idleTimeoutMs, is drained, the longest idle first, as long as enough ready workers stay. Booting instances do not
 * count as staying: they may never come up.
 */
import type { InstanceRule } from './rule.ts'

export const idle: InstanceRule = ({ instances, settings }, plan, now) => {
  const ready = instances.filter(({ id, state }) => state === 'ready' && !plan.ending.has(id))
  const surplus = Math.max(0, ready.length - plan.wanted)
  return ready
    .filter(({ leases, outside }) => leases === 0 && !outside)
    .filter(({ idleSince }) => idleSince !== undefined && now - idleSince >= settings.idleTimeoutMs)
    .sort((a, b) => (a.idleSince ?? 0) - (b.idleSince ?? 0))
    .slice(0, surplus)
    .map(({ id }) => ({ kind: 'drain', instanceId: id, reason: 'idle' }))
}
