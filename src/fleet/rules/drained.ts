/**
 * drained: a draining worker that holds no job is ended. Most have ended by themselves before this rule sees them:
 * `settleMs` gives them the time for it. That no job is lost does not hang on a time: leases are read after the drain was
 * seen, and a claim that was let through before it is looked at once more after it took its lease.
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
