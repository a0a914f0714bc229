/** Explains why a job waits that no worker can take now, from the state of queues and workers. */
import { launchableTypes } from '../fleet/fleet-queues.ts'
import type { JobView } from '../jobs/admin/inspect.ts'
import { countByType } from '../jobs/bullmq/lanes.ts'
import type { Api } from './api.ts'

export type WaitReason = 'queue_paused' | 'no_worker' | 'no_worker_for_type'

export interface WaitsFor {
  readonly reason: WaitReason
  readonly explanation: string
}

type Parts = Pick<Api, 'jobs' | 'fleet' | 'types' | 'settings'>

/** Undefined when the job does not wait, or a living worker can take it in its turn. */
export async function whyWaiting(parts: Parts, job: JobView): Promise<WaitsFor | undefined> {
  const { jobs, fleet } = parts
  if (job.state !== 'waiting') return undefined
  const [state, workers] = await Promise.all([jobs.of(job.queue).control.state(), fleet.registry.list()])
  if (state === 'paused')
    return {
      reason: 'queue_paused',
      explanation: `The queue "${job.queue}" is paused: nothing is claimed until it is resumed.`,
    }
  const serving = workers.filter(({ queue, state: standing }) => queue === job.queue && standing === 'ready')
  if (serving.some(({ types }) => types.includes(job.type))) return undefined
  const isLaunched = await launchedIn(parts, job.queue)
  const then = isLaunched(job.type)
    ? 'The fleet launches workers for it, up to the limits of the pool.'
    : 'It waits, no attempt spent, until a worker that declares this type appears.'
  if (serving.length === 0)
    return { reason: 'no_worker', explanation: `No worker of the queue "${job.queue}" is ready. ${then}` }
  return {
    reason: 'no_worker_for_type',
    explanation: `${serving.length === 1 ? '1 worker of the queue' : `${serving.length} workers of the queue`} "${job.queue}" ${serving.length === 1 ? 'is ready, but it has no' : 'are ready, but none has a'} handler for the type "${job.type}". ${then}`,
  }
}

/** Types of which jobs stand ready, while no living worker runs them and the fleet launches none that does. */
export async function typesWithoutWorker(
  parts: Parts,
): Promise<{ queue: string; type: string; waitingCount: number }[]> {
  const workers = await parts.fleet.registry.list()
  const found = await Promise.all(
    parts.jobs.queues.all().map(async queue => {
      const alive = new Set(workers.filter(worker => worker.queue === queue.name).flatMap(({ types }) => types))
      const isLaunched = await launchedIn(parts, queue.name)
      return [...(await countByType(queue))]
        .filter(([type]) => !alive.has(type) && !isLaunched(type))
        .map(([type, waitingCount]) => ({ queue: queue.name, type, waitingCount }))
    }),
  )
  return found.flat()
}

/** Whether the fleet launches workers for a type, by the same rule as the autoscaler: all count while none is known. */
async function launchedIn({ settings, types, fleet }: Parts, queue: string): Promise<(type: string) => boolean> {
  if (settings.fleet === 'none') return () => false
  const known = launchableTypes(types.own(), [], await fleet.registry.launchedTypes(queue))
  return type => known.length === 0 || known.includes(type)
}
