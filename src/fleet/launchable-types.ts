/**
 * Which types of jobs the instances of a pool can run: those of the handlers that they are launched with, and those that
 * they declared. Only these count when the size of the pool is decided.
 */
import type { QueueLoad } from './fleet-queues.ts'
import type { WorkerRecord } from './registry.ts'
import type { InstanceView } from './snapshot.ts'

/**
 * @param own types of the handlers of this node, which it gives to those that it launches
 * @param launched living workers on instances of the pool
 * @param remembered what such workers declared last; counts while there is none
 */
export function launchableTypes(
  own: readonly string[],
  launched: readonly Pick<WorkerRecord, 'types'>[],
  remembered: readonly string[],
): string[] {
  const declared = launched.length > 0 ? launched.flatMap(({ types }) => types) : remembered
  return [...new Set([...own, ...declared])].sort()
}

/**
 * Leaves out workers that somebody else started and that cannot run all that waits, and the jobs that they hold: they
 * are no capacity for it.
 */
export function onlyUseful(
  load: QueueLoad,
  views: readonly InstanceView[],
  workers: readonly Pick<WorkerRecord, 'workerId' | 'types'>[],
): { load: QueueLoad; views: InstanceView[] } {
  const typesOf = new Map(workers.map(({ workerId, types }) => [workerId, types]))
  const isUseful = ({ id, outside }: InstanceView): boolean =>
    outside !== true || (load.waitingTypes ?? []).every(type => typesOf.get(id)?.includes(type) ?? false)
  const others = views.filter(view => !isUseful(view))
  const heldByOthers = others.reduce((sum, { leases }) => sum + leases, 0)
  return {
    load: { ...load, running: Math.max(0, load.running - heldByOthers) },
    views: views.filter(isUseful),
  }
}
