/** Clocks, disks, workers and the fleet, as the nodes and the Redis servers report them. Pure. */
import type { ServerSurvey } from '../redis/inspect/survey.ts'
import type { NodeView } from './ask-nodes.ts'
import { type Fault, type Finding, ok, skipped, sum, warn } from './finding.ts'

const skewWarnMs = 500
const skewFailMs = 5000

/** All against the clock of this machine. */
export function checkClocks(views: readonly NodeView[], servers: readonly ServerSurvey[]): Finding {
  const clocks = [
    ...views.flatMap(({ url, clockAheadMs }) => (clockAheadMs === undefined ? [] : [{ where: url, clockAheadMs }])),
    ...servers
      .filter(({ error }) => error === undefined)
      .map(({ where, clockAheadMs }) => ({ where: `Redis ${where}`, clockAheadMs })),
  ]
  if (clocks.length === 0) return skipped('clocks', 'nobody tells the time')
  const faults = clocks.flatMap(({ where, clockAheadMs }): Fault[] => {
    const offMs = Math.round(Math.abs(clockAheadMs))
    const text = `${where} is ${offMs} ms ${clockAheadMs > 0 ? 'ahead of' : 'behind'} this machine`
    return offMs > skewWarnMs ? [{ isGrave: offMs > skewFailMs, text }] : []
  })
  const worstMs = Math.round(Math.max(...clocks.map(({ clockAheadMs }) => Math.abs(clockAheadMs))))
  return sum(
    'clocks',
    faults,
    'Run a time service (chrony, systemd-timesyncd) on every machine: delays, leases and schedules follow the clock.',
    `${clocks.length} within ${worstMs} ms`,
  )
}

const gibibyte = 1024 ** 3
const inGib = (bytes: number): string => `${(bytes / gibibyte).toFixed(1)} GiB`

export function checkDisks(disks: readonly { where: string; freeBytes: number; totalBytes: number }[]): Finding {
  if (disks.length === 0) return skipped('disk', 'no node tells of its disk')
  const faults = disks.flatMap(({ where, freeBytes, totalBytes }): Fault[] => {
    const share = freeBytes / totalBytes
    const isLow = (share < 0.1 && freeBytes < 20 * gibibyte) || freeBytes < 2 * gibibyte
    const isGrave = (share < 0.02 && freeBytes < 4 * gibibyte) || freeBytes < gibibyte / 4
    return isLow || isGrave ? [{ isGrave, text: `${where}: ${inGib(freeBytes)} of ${inGib(totalBytes)} are free` }] : []
  })
  return sum(
    'disk',
    faults,
    'Free some space, or give the disk of MUSTER_DATA_DIR more: without it neither payloads nor an embedded Redis can write.',
    disks.map(({ where, freeBytes }) => `${where}: ${inGib(freeBytes)} free`).join(', '),
  )
}

/** Types named in one finding. */
const shownTypes = 5

/** As one node sees them: all see the same. */
export function checkWorkers(views: readonly NodeView[]): Finding {
  const report = views.find(view => view.report?.workers !== undefined)?.report
  if (report?.workers === undefined) return skipped('workers', 'no node tells of workers')
  const { aliveCount, silentCount, longestSilenceMs = 0 } = report.workers
  const still = views.find(view => view.report?.standingStill !== undefined)?.report?.standingStill ?? []
  if (still.length > 0)
    return warn(
      'workers',
      still
        .slice(0, shownTypes)
        .map(
          ({ queue, workerId, forMs }) =>
            `${workerId} takes nothing from queue "${queue}" for ${Math.round(forMs / 1000)} s`,
        )
        .join(', ')
        .concat(', although work that it can run waits'),
      'They are told to go by themselves before long. If it comes again, look into the log of the worker: does it reach a node?',
    )
  const without = views.find(view => view.report?.withoutWorker !== undefined)?.report?.withoutWorker ?? []
  const launches = report.fleet.provider !== 'none'
  if (without.length > 0 && (aliveCount > 0 || launches))
    return warn(
      'workers',
      without
        .slice(0, shownTypes)
        .map(({ queue, type, waitingCount }) => `${waitingCount} jobs of type "${type}" wait in queue "${queue}"`)
        .join(', ')
        .concat(`, and no living worker has declared that type${launches ? ', nor would one that is launched' : ''}`),
      'Start workers with a handler for it (--handlers), in that queue, or cancel these jobs. They lose no attempt meanwhile.',
    )
  if (silentCount > 0)
    return warn(
      'workers',
      `${aliveCount} alive, ${silentCount} not heard of for too long`,
      'Their jobs go to others by themselves. Do their machines run, and do they reach a node (MUSTER_NODE_URLS)?',
    )
  if (aliveCount > 0) return ok('workers', `${aliveCount} alive; each was heard of ${longestSilenceMs} ms ago or less`)
  if (launches) return ok('workers', 'none now; they are launched when there is work')
  return warn(
    'workers',
    'none, and this fleet launches none (MUSTER_FLEET=none)',
    'Start some with "muster worker", or set MUSTER_FLEET: until then jobs wait.',
  )
}

export function checkFleet(views: readonly NodeView[]): Finding {
  const report = views.find(view => view.report !== undefined)?.report
  if (report === undefined) return skipped('fleet', 'no node tells of its fleet')
  const { provider, failures, maxWorkers } = report.fleet
  const faults = failures.map(({ queue, count, lastAt, lastError = 'it brought up no worker' }): Fault => {
    return { isGrave: count > 1, text: `queue ${queue}: ${count} launches failed, the last at ${lastAt}: ${lastError}` }
  })
  return sum(
    'fleet',
    faults,
    'Run "muster fleet explain": it says what was tried and why, and shows what an instance said while it booted.',
    provider === 'none' ? 'none: workers are started by somebody else' : `${provider}, up to ${maxWorkers} workers`,
  )
}
