/** What the fleet needs of the queues: their loads, the types that wait, and a way to requeue jobs of a lost worker. */
import type { InstanceView } from './scaling/snapshot.ts'
import type { WorkerRecord } from './workers/registry.ts'

export interface QueueLoad {
  /** Ready to run now, prioritised ones included, and of the types asked for. */
  readonly waiting: number
  /** Of which types; absent: nobody tells. */
  readonly waitingTypes?: readonly string[]
  /** Delayed, and due within the time that was asked about. */
  readonly dueDelayed: number
  /** Held by workers. */
  readonly running: number
  /** Completions over all time. */
  readonly finishedCount: number
  /** Run time of those completions, summed over all time. */
  readonly busyMs: number
  readonly paused: boolean
}

export interface FleetQueues {
  /** Reads what one queue holds of these types (left out: of all); a queue that was never used is empty. */
  load(queue: string, dueWithinMs: number, types?: readonly string[]): Promise<QueueLoad>
  /** How many jobs each worker holds; a worker that holds none is absent. */
  leasesByWorker(queue: string): Promise<Map<string, number>>
  /**
   * Puts all jobs that a worker holds back to waiting; no attempt is spent.
   * @param wasLost the worker was lost under its jobs, which count that against the day when they have lost too many
   * @returns how many went back; 0 when it holds none (calling twice is safe)
   */
  returnLeasesOf(queue: string, workerId: string, wasLost: boolean): Promise<number>
}

/**
 * Which types of jobs the instances of a pool can run: those of the handlers that they are launched with, and those that
 * they declared. Only these count when the size of the pool is decided.
 */

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
  const isUseful = ({ id, unmanaged }: InstanceView): boolean =>
    unmanaged !== true || (load.waitingTypes ?? []).every(type => typesOf.get(id)?.includes(type) ?? false)
  const others = views.filter(view => !isUseful(view))
  const heldByOthers = others.reduce((sum, { leases }) => sum + leases, 0)
  return {
    load: { ...load, running: Math.max(0, load.running - heldByOthers) },
    views: views.filter(isUseful),
  }
}
