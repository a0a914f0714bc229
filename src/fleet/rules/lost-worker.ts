/**
 * lost-worker: the instance is there but its worker has been silent too long (it hangs, or its network is gone). Its
 * jobs are somebody else's by now, so it is ended by force. Silence only counts while heartbeats could be recorded:
 * after Redis or the nodes were away nobody is blamed.
 */
import type { InstanceRule } from './rule.ts'

export const lostWorker: InstanceRule = ({ instances, silentAfterMs, hearingSince }, _plan, now) =>
  instances
    .filter(({ state, outside }) => (state === 'ready' || state === 'draining') && !outside)
    .filter(({ lastSeenAt }) => lastSeenAt !== undefined && now - Math.max(lastSeenAt, hearingSince) > silentAfterMs)
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: true, reason: 'lost-worker' }))
