/**
 * interrupted: a host that outlives the time at which it was to be taken away is ended, so that the ceiling is exceeded
 * for a bounded time only. By then its worker has handed back what it held. A rebalance names no such time: the worker
 * finishes what it runs, and is ended by the drained rule.
 */
import type { InstanceRule } from './rule.ts'

const graceMs = 60_000

export const interrupted: InstanceRule = ({ instances }, plan, now) =>
  instances
    .filter(({ id, state, outside }) => state !== 'terminating' && !outside && !plan.ending.has(id))
    .filter(({ interrupted }) => interrupted?.kind === 'interruption' && now - interrupted.at > graceMs)
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: true, reason: 'interrupted' }))
