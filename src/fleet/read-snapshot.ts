/** Puts together what `decide` sees of one pool: what the provider lists, what the registry knows and what the queue holds. */
import type { PoolSettings } from '../settings.ts'
import type { QueueLoad } from './fleet-queues.ts'
import type { Instance } from './providers/provider.ts'
import type { WorkerRecord } from './registry.ts'
import type { InstanceView, PoolSnapshot } from './snapshot.ts'

/** The instances of one pool, each with its worker, and the alive workers that somebody else started. */
export function viewInstances(
  queue: string,
  instances: readonly Instance[],
  workers: readonly WorkerRecord[],
  leases: ReadonlyMap<string, number>,
  aliveSince: number,
): InstanceView[] {
  const ours = instances.filter(({ pool }) => pool === queue)
  const byInstance = new Map(workers.map(worker => [worker.instanceId, worker]))
  const ids = new Set(instances.map(({ id }) => id))
  const outside = workers.filter(
    ({ queue: served, instanceId, state, lastSeenAt }) =>
      served === queue &&
      state !== 'stopped' &&
      lastSeenAt >= aliveSince &&
      (instanceId === undefined || !ids.has(instanceId)),
  )
  return [
    ...ours.map(instance => viewInstance(instance, byInstance.get(instance.id), leases)),
    ...outside.map(
      (worker): InstanceView => ({
        ...viewWorker(worker, leases),
        id: worker.workerId,
        launchedAt: worker.firstSeenAt,
        outside: true,
      }),
    ),
  ]
}

function viewInstance(
  instance: Instance,
  worker: WorkerRecord | undefined,
  leases: ReadonlyMap<string, number>,
): InstanceView {
  const { id, launchedAt, slots } = instance
  if (worker === undefined)
    return { id, launchedAt, slots, leases: 0, state: instance.state === 'terminating' ? 'terminating' : 'booting' }
  const view = viewWorker(worker, leases)
  return { ...view, id, launchedAt, state: instance.state === 'terminating' ? 'terminating' : view.state }
}

function viewWorker(
  worker: WorkerRecord,
  leasesOf: ReadonlyMap<string, number>,
): Omit<InstanceView, 'id' | 'launchedAt'> {
  const leases = leasesOf.get(worker.workerId) ?? 0
  const idle = leases === 0 && worker.idleSince !== undefined
  return {
    state: worker.drain === undefined ? 'ready' : 'draining',
    slots: worker.slots,
    leases,
    readyAt: worker.firstSeenAt,
    lastSeenAt: worker.lastSeenAt,
    ...(idle ? { idleSince: worker.idleSince } : {}),
    ...(worker.drain === undefined ? {} : { drainingSince: worker.drain.since }),
  }
}

/** @param serviceMs the measured mean run time; undefined when there is none */
export function buildSnapshot(
  queue: string,
  settings: PoolSettings,
  load: QueueLoad,
  serviceMs: number | undefined,
  rest: Pick<PoolSnapshot, 'instances' | 'failures' | 'silentAfterMs' | 'hearingSince'>,
): PoolSnapshot {
  const { waiting, dueDelayed, running, paused } = load
  const measured = serviceMs === undefined ? {} : { serviceMs: Math.round(serviceMs * 1000) / 1000 }
  return { queue, settings, load: { waiting, dueDelayed, running, paused, ...measured }, ...rest }
}
