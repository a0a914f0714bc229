/**
 * boot-timeout: an instance from which no worker has registered in time is ended, and its launch counts as failed.
 * As with silence, time in which nobody could register does not count.
 */
import type { InstanceRule } from './rule.ts'

export const bootTimeout: InstanceRule = ({ instances, settings, hearingSince }, _plan, now) =>
  instances
    .filter(
      ({ state, launchedAt }) =>
        state === 'booting' && now - Math.max(launchedAt, hearingSince) > settings.bootTimeoutMs,
    )
    .map(({ id }) => ({ kind: 'terminate', instanceId: id, force: true, reason: 'boot-timeout' }))
