/**
 * Instances on this machine while another node scales the fleet: launched under a lease that has passed on, or left by a
 * node that was killed and adopted by its successor. The other node sees their workers, but cannot end them; so one
 * that has had no work for the usual time is told to go from here. It finishes what it may have got meanwhile.
 */
import type { PoolSettings } from '../settings.ts'
import type { Provider } from './providers/provider.ts'
import type { WorkerRegistry } from './registry.ts'
import { providerTimeoutMs, redisTimeoutMs, within } from './within.ts'

export interface EndIdleOptions {
  readonly provider: Provider
  readonly registry: WorkerRegistry
  readonly pools: Readonly<Record<string, PoolSettings>>
}

/**
 * @param now in ms since the epoch
 * @returns how many were told
 */
export async function endIdleHere({ provider, registry, pools }: EndIdleOptions, now: number): Promise<number> {
  if (!provider.endsWithNode) return 0
  const instances = await within(providerTimeoutMs, 'The provider (list)', provider.list())
  const running = new Set(instances.filter(({ state }) => state === 'running').map(({ id }) => id))
  if (running.size === 0) return 0
  const workers = await within(redisTimeoutMs, 'Redis (workers)', registry.all())
  const idle = workers.filter(({ instanceId = '', drain, idleSince, queue }) => {
    const timeoutMs = pools[queue]?.idleTimeoutMs ?? 0
    return running.has(instanceId) && drain === undefined && idleSince !== undefined && now - idleSince > timeoutMs
  })
  for (const { workerId } of idle)
    await within(redisTimeoutMs, 'Redis (drain)', registry.requestDrain(workerId, 'idle'))
  return idle.length
}
