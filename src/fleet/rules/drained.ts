/**
 * drained: a draining worker that holds no job is ended. Most have ended by themselves before this rule sees them. It
 * waits for `settleMs` after the drain began, so that a claim which was let through just before shows as a lease.
 */
import type { InstanceRule } from './rule.ts'

const settleMs = 1000

export const drained: InstanceRule = ({ instances }, plan, now) =>
  instances
    .filter(
      ({ id, state, leases, outside }) => state === 'draining' && leases === 0 && !outside && !plan.ending.has(id),
    )
    .filter(({ drainingSince }) => drainingSince !== undefined && now - drainingSince >= settleMs)
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: false, reason: 'drained' }))
