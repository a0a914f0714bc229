/** Puts together what `decide` sees of the instances of one pool: what the provider lists, what the registry knows and what the queue holds. */

import type { Instance } from '../providers/provider.ts'
import type { WorkerRecord } from '../workers/registry.ts'
import type { LaunchTicket } from './launch-tickets.ts'
import type { InstanceView } from './snapshot.ts'

/** How long a list may miss what another node has launched. */
const unlistedMs = 15_000

/** What is listed, and what the last launch of another node has brought and is not listed yet. */
export function withUnlisted(listed: readonly Instance[], { last }: LaunchTicket, now: number): Instance[] {
  const ids = new Set(listed.map(({ id }) => id))
  return [...listed, ...last.filter(({ id, launchedAt }) => !ids.has(id) && now - launchedAt < unlistedMs)]
}

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
  const unmanaged = workers.filter(
    ({ queue: served, instanceId, state, lastSeenAt }) =>
      served === queue &&
      state !== 'stopped' &&
      lastSeenAt >= aliveSince &&
      (instanceId === undefined || !ids.has(instanceId)),
  )
  return [
    ...ours.map(instance => viewInstance(instance, byInstance.get(instance.id), leases)),
    ...unmanaged.map(
      (worker): InstanceView => ({
        ...viewWorker(worker, leases),
        id: worker.workerId,
        launchedAt: worker.firstSeenAt,
        unmanaged: true,
      }),
    ),
  ]
}

function viewInstance(
  instance: Instance,
  worker: WorkerRecord | undefined,
  leases: ReadonlyMap<string, number>,
): InstanceView {
  const { id, launchedAt, slots, market, instanceType, zone, hourlyUsd } = instance
  const kind = {
    ...(market !== undefined && { market }),
    ...(instanceType !== undefined && { instanceType }),
    ...(zone !== undefined && { zone }),
    ...(hourlyUsd !== undefined && { hourlyUsd }),
  }
  const view = worker === undefined ? { slots, leases: 0, state: 'booting' as const } : viewWorker(worker, leases)
  return { ...view, ...kind, id, launchedAt, state: instance.state === 'terminating' ? 'terminating' : view.state }
}

function viewWorker(
  worker: WorkerRecord,
  leasesOf: ReadonlyMap<string, number>,
): Omit<InstanceView, 'id' | 'launchedAt'> {
  const { drain, interruption, slots, firstSeenAt, lastSeenAt, idleSince } = worker
  const leases = leasesOf.get(worker.workerId) ?? 0
  return {
    state: drain === undefined ? 'ready' : 'draining',
    slots,
    leases,
    readyAt: firstSeenAt,
    lastSeenAt,
    ...(leases === 0 && idleSince !== undefined && { idleSince }),
    ...(drain !== undefined && { drainingSince: drain.since }),
    ...(interruption !== undefined && { interrupted: interruption }),
  }
}
