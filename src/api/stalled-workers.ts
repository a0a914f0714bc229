/**
 * Stalled workers: ready, without a job, while work that they can run has waited for long. Such a worker sends no
 * claims, or its claims get lost. Claims that hang inside a node are found by jobs/watchdog/watchdog.ts.
 */
import type { Logger } from 'pino'
import type { WorkerRecord } from '../fleet/workers/registry.ts'
import { longestWaitingByType } from '../jobs/admin/oldest-waiting.ts'
import { Loop } from '../loop.ts'
import type { Settings } from '../settings/settings.ts'
import type { Api } from './api.ts'

export interface StalledWorker {
  readonly queue: string
  readonly workerId: string
  /** For how long it has had no job although one waited. */
  readonly forMs: number
}

const lookEveryMs = 15_000

/** A worker has this long to ask: longer than an outage from which it comes back by itself. */
export const stalledAfterMs = ({ leaseMs }: Pick<Settings, 'leaseMs'>): number => Math.max(60_000, 4 * leaseMs)

type Parts = Pick<Api, 'jobs' | 'fleet'>

/** @param afterMs how long both must have lasted */
export async function findStalledWorkers(
  { jobs, fleet }: Parts,
  afterMs: number,
  now = Date.now(),
): Promise<StalledWorker[]> {
  const workers = (await fleet.registry.list()).filter(({ state, drain }) => state === 'ready' && drain === undefined)
  const found: StalledWorker[] = []
  for (const queue of jobs.queues.all()) {
    const serving = workers.filter(worker => worker.queue === queue.name)
    if (serving.length === 0 || (await jobs.of(queue.name).control.state()) === 'paused') continue
    found.push(...evaluateStalled(queue.name, serving, await longestWaitingByType(queue), afterMs, now))
  }
  return found
}

/**
 * Logs stalled workers and wakes all claims of their queue, in case a notification was lost. A worker that is stalled
 * on two looks in a row is drained, so that the fleet replaces it and the others get its work.
 */
export function watchStalledWorkers(
  parts: Parts,
  settings: Pick<Settings, 'leaseMs'>,
  log: Logger,
  wake: (queue: string) => void,
): Loop {
  let before = new Set<string>()
  const look = async (): Promise<void> => {
    const found = await findStalledWorkers(parts, stalledAfterMs(settings))
    for (const { queue, workerId, forMs } of found) {
      log.error({ queue, workerId, forMs }, 'work waits, and a worker that can run it is ready, but takes nothing')
      wake(queue)
      if (before.has(workerId)) await parts.fleet.registry.requestDrain(workerId, 'stalled')
    }
    before = new Set(found.map(({ workerId }) => workerId))
  }
  return new Loop({ name: 'stalled workers', intervalMs: lookEveryMs, run: look, log })
}

/** @param waitingSince by type, in ms since the epoch */
export function evaluateStalled(
  queue: string,
  workers: readonly Pick<WorkerRecord, 'workerId' | 'types' | 'idleSince'>[],
  waitingSince: ReadonlyMap<string, number>,
  afterMs: number,
  now: number,
): StalledWorker[] {
  return workers.flatMap(({ workerId, types, idleSince }) => {
    const since = types.flatMap(type => waitingSince.get(type) ?? [])
    if (idleSince === undefined || since.length === 0) return []
    const forMs = now - Math.max(idleSince, Math.min(...since))
    return forMs >= afterMs ? [{ queue, workerId, forMs }] : []
  })
}
