/** The rules that hold launches back: after failed launches, in a paused queue, and where a new worker would be ready too late. */

import type { InstanceView, LaunchFailures, PoolSnapshot } from '../snapshot.ts'
import { isOverdue } from './instances.ts'
import { backlogOf, plural, type SizeRule } from './rule.ts'

/**
 * launch-backoff: after launches that brought up no lasting worker the next one waits, twice as long each time up to a
 * cap, and is a single instance, whose worker must come up before another is tried: a worker that dies at its start is
 * not launched in a hot loop. The cap is low enough for work to flow soon after whatever broke the launches was mended.
 */
const firstWaitMs = 1000
const longestWaitMs = 20_000

const nextLaunchAt = ({ count, lastAt }: LaunchFailures): number =>
  lastAt + Math.min(longestWaitMs, firstWaitMs * 2 ** Math.min(count - 1, 30))

/** Why nothing may be launched now; undefined when something may. */
export function heldBack({ failures, instances }: PoolSnapshot, now: number): string | undefined {
  if (failures.count === 0) return undefined
  const last = failures.lastError === undefined ? '' : ` (the last: ${failures.lastError})`
  const failed = `launches failed in a row: ${failures.count}${last}`
  const launchAt = nextLaunchAt(failures)
  if (now < launchAt) return `${failed}, so the next one waits ${launchAt - now} ms`
  const trial = instances.find(({ state, launchedAt }) => state === 'booting' && launchedAt >= failures.lastAt)
  return trial === undefined ? undefined : `${failed}, so the next one waits until ${trial.id} is ready`
}

/** How many of `missing` instances may be launched in one decision. */
export const launchable = ({ count }: LaunchFailures, missing: number): number =>
  count === 0 ? missing : Math.min(1, missing)

/** paused: nothing is handed out from a paused queue, so its backlog needs nobody. Busy workers finish; the floor stays. */
export const paused: SizeRule = ({ load }) =>
  load.paused
    ? { workers: 0, reason: 'paused', explanation: 'the queue is paused, so its backlog needs no workers' }
    : undefined

/**
 * boot-time: launch only what shortens the wait. A worker that is launched now is ready in bootMs; by then the ready
 * slots, and the booting ones from when they are up, have finished
 *
 *   finished = Σ over slots of floor( time until then ÷ serviceMs )
 *
 * of the jobs that are there and of those that will have come at the recent rate. What is left then can use a slot a job
 * and no more, so no more workers are desired than have slots for it, unless they are there already.
 * A booting worker that takes longer than bootMs is expected as late as a new one: it counts, once, and finishes nothing
 * before. One whose time to boot is over will be ended, and finishes nothing either.
 */
export const bootTime: SizeRule = (snapshot, soFar, now) => {
  const { settings, load, bootMs } = snapshot
  if (settings.policy !== 'target-wait' || bootMs === undefined || load.serviceMs === undefined) return undefined
  const serving = snapshot.instances.filter(({ state }) => state === 'ready' || state === 'booting')
  if (soFar.workers <= serving.length) return undefined
  const jobs = backlogOf(snapshot)
  const coming = Math.round(((load.arrivalsPerSecond ?? 0) * bootMs) / 1000)
  const finished = Math.min(jobs + coming, finishedWithin(serving, snapshot, bootMs, load.serviceMs, now))
  const left = jobs + coming - finished
  const workers = Math.max(serving.length, Math.ceil(left / settings.slots))
  if (workers >= soFar.workers) return undefined
  const explanation =
    `${soFar.explanation}; but a new one would be ready in ${bootMs} ms, by when the ${serving.length} there will have ` +
    `finished ${finished} of ${plural(jobs, 'job')} and ${coming} that come meanwhile, so ${plural(workers, 'worker')} will do`
  return { workers, reason: 'boot-time', explanation }
}

function finishedWithin(
  serving: readonly InstanceView[],
  snapshot: PoolSnapshot,
  bootMs: number,
  serviceMs: number,
  now: number,
): number {
  const { silentAfterMs, observedSince } = snapshot
  const oneJobMs = Math.max(serviceMs, 0.001)
  return serving.reduce((sum, instance) => {
    const { state, launchedAt, lastSeenAt = 0, slots } = instance
    if (isOverdue(instance, snapshot, now)) return sum
    const ageMs = now - launchedAt
    const silent = state === 'ready' && now - Math.max(lastSeenAt, observedSince) > silentAfterMs
    const workingMs = silent ? 0 : state === 'ready' ? bootMs : ageMs > bootMs ? 0 : Math.max(0, ageMs)
    return sum + slots * Math.floor(workingMs / oneJobMs)
  }, 0)
}
