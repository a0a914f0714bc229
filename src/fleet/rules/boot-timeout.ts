/**
 * boot-timeout: an instance from which no worker has registered in time is ended, and its launch counts as failed.
 * As with silence, time in which nobody could register does not count.
 */
import type { InstanceView, PoolSnapshot } from '../snapshot.ts'
import type { InstanceRule } from './rule.ts'

/** Whether the time to boot is over: such an instance is ended by this decision, and counts for nothing in it. */
export const isOverdue = (
  { state, launchedAt }: InstanceView,
  { settings, hearingSince }: PoolSnapshot,
  now: number,
): boolean => state === 'booting' && now - Math.max(launchedAt, hearingSince) > settings.bootTimeoutMs

export const bootTimeout: InstanceRule = (snapshot, _plan, now) =>
  snapshot.instances
    .filter(instance => isOverdue(instance, snapshot, now))
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: true, reason: 'boot-timeout' }))
