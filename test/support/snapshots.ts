/** Snapshots of pools and instances for tests of decisions: say only what matters, the rest is ordinary. */
import type { InstanceView, PoolLoad, PoolSnapshot } from '../../src/fleet/scaling/snapshot.ts'
import type { PoolSettings } from '../../src/settings/settings.ts'

export const t0 = 1_800_000_000_000

export const settings: PoolSettings = {
  minWorkers: 0,
  maxWorkers: 10,
  policy: 'target-wait',
  jobsPerWorker: 10,
  fixedWorkers: 3,
  targetWaitMs: 5000,
  idleTimeoutMs: 60_000,
  bootTimeoutMs: 30_000,
  slots: 2,
}

export interface Given {
  settings?: Partial<PoolSettings>
  load?: Partial<PoolLoad>
  instances?: readonly InstanceView[]
  failures?: PoolSnapshot['failures']
  observedSince?: number
  bootMs?: number
}

export const pool = (given: Given): PoolSnapshot => ({
  queue: 'default',
  settings: { ...settings, ...given.settings },
  load: { waiting: 0, dueDelayed: 0, running: 0, paused: false, ...given.load },
  instances: given.instances ?? [],
  failures: given.failures ?? { count: 0, lastAt: 0 },
  ...(given.bootMs === undefined ? {} : { bootMs: given.bootMs }),
  silentAfterMs: 30_000,
  observedSince: given.observedSince ?? t0 - 10_000_000,
})

export const booting = (id: string, launchedAt = t0): InstanceView => ({
  id,
  state: 'booting',
  launchedAt,
  slots: 2,
  leases: 0,
})
export const ready = (id: string, more: Partial<InstanceView> = {}): InstanceView => ({
  id,
  state: 'ready',
  launchedAt: t0 - 500_000,
  readyAt: t0 - 499_000,
  lastSeenAt: t0,
  slots: 2,
  leases: 0,
  ...more,
})

/** Its worker has said that its host is being taken away: it drains. */
export const interrupted = (id: string, more: Partial<InstanceView> = {}): InstanceView =>
  ready(id, {
    state: 'draining',
    drainingSince: t0,
    interrupted: { kind: 'interruption', at: t0 + 120_000 },
    leases: 1,
    ...more,
  })
