/**
 * idle: the only way in which a pool shrinks, and its hysteresis. A ready worker that holds no job, and has held none
 * for idleTimeoutMs, is drained as long as enough ready workers stay. Booting instances do not count as staying: they
 * may never come up.
 * The dearest goes first; where a price is missing, Spot before On-Demand, since it may be taken away anyway; then the
 * one that has been idle for longest.
 */
import type { InstanceView } from '../snapshot.ts'
import type { InstanceRule } from './rule.ts'

export const idle: InstanceRule = ({ instances, settings }, plan, now) => {
  const ready = instances.filter(({ id, state }) => state === 'ready' && !plan.ending.has(id))
  const surplus = Math.max(0, ready.length - plan.wanted)
  const candidates = ready
    .filter(({ leases, outside }) => leases === 0 && !outside)
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
