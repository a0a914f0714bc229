/**
 * launch-backoff: after launches that brought up no lasting worker the next one waits, twice as long each time up to a
 * cap, and is a single instance, whose worker must come up before another is tried: a worker that dies at its start is
 * not launched in a hot loop. The cap is low enough for work to flow soon after whatever broke the launches was mended.
 */
import type { LaunchFailures, PoolSnapshot } from '../snapshot.ts'

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
