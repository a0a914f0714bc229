/** Puts the inside view of this node together; no part of it may hold up or fail the others. */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import type { NodeReport } from '../contract/node-report.ts'
import { readDisk } from '../disk-space.ts'
import type { Settings } from '../settings/settings.ts'
import { version } from '../version.ts'
import { within } from '../within.ts'
import type { Api } from './api.ts'
import { findStalledWorkers, stalledAfterMs } from './stalled-workers.ts'
import { typesWithoutWorker } from './why-waiting.ts'

/** Time limit of one part: the caller has a time limit too. */
const partWithinMs = 2000

type Parts = Pick<Api, 'settings' | 'fleet' | 'jobs' | 'types' | 'ping' | 'stopping'>

/** @returns what makes the report; each call gives a fresh one, and never fails */
export function nodeReporter(parts: Parts): () => Promise<NodeReport> {
  const nodeId = randomUUID()
  return async () => {
    const { settings, stopping } = parts
    const [redis, disk, workers, failures, withoutWorker, standingStill] = await Promise.all([
      askRedis(parts),
      readDisk(settings.dataDir),
      countWorkers(parts),
      readFailures(parts),
      within(partWithinMs, 'Redis', typesWithoutWorker(parts)).catch(() => undefined),
      within(partWithinMs, 'Redis', findStalledWorkers(parts, stalledAfterMs(settings))).catch(() => undefined),
    ])
    const overloaded = parts.jobs.memoryGuard.overload()
    const maxWorkers = Object.values(settings.pools).reduce((sum, pool) => sum + pool.maxWorkers, 0)
    return {
      nodeId,
      host: hostname(),
      version,
      now: new Date().toISOString(),
      uptimeMs: Math.floor(process.uptime() * 1000),
      isStopping: stopping.aborted,
      durability: settings.durability,
      ...(disk && { dataDir: disk }),
      ...(overloaded !== undefined && { overloaded }),
      redis: { kind: kindOfRedis(settings), ...redis },
      fleet: { provider: settings.fleet, maxWorkers, failures },
      ...(withoutWorker && { withoutWorker }),
      ...(standingStill && { standingStill }),
      ...(workers && { workers }),
    }
  }
}

function kindOfRedis({ redisUrl }: Settings): NodeReport['redis']['kind'] {
  if (redisUrl === '') return 'embedded'
  const [, kind] = /^rediss?\+(sentinel|cluster):/i.exec(redisUrl) ?? []
  return (kind?.toLowerCase() as 'sentinel' | 'cluster' | undefined) ?? 'single'
}

async function askRedis({ ping }: Parts): Promise<{ pingMs?: number; error?: string }> {
  const startedMs = performance.now()
  try {
    await within(partWithinMs, 'Redis', ping())
    return { pingMs: Math.round((performance.now() - startedMs) * 100) / 100 }
  } catch (error) {
    return { error: (error as Error).message }
  }
}

async function countWorkers({ fleet }: Parts): Promise<NodeReport['workers']> {
  const read = Promise.all([fleet.registry.all(), fleet.registry.list()])
  const [all, alive] = (await within(partWithinMs, 'Redis', read).catch(() => undefined)) ?? []
  if (all === undefined || alive === undefined) return undefined
  const running = all.filter(({ state }) => state !== 'stopped')
  const silences = alive.map(({ lastSeenAt }) => Math.max(0, Date.now() - lastSeenAt))
  return {
    aliveCount: alive.length,
    silentCount: running.length - alive.length,
    ...(silences.length > 0 && { longestSilenceMs: Math.max(...silences) }),
  }
}

/** Launches that fail, by the latest decision of each pool. */
async function readFailures({ fleet, settings }: Parts): Promise<NodeReport['fleet']['failures']> {
  const queues = Object.keys(settings.pools)
  const read = Promise.all(queues.map(async queue => ({ queue, latest: await fleet.latestDecision(queue) })))
  const found = (await within(partWithinMs, 'Redis', read).catch(() => undefined)) ?? []
  return found.flatMap(({ queue, latest }) => {
    const failures = latest?.inputs.failures
    if (failures === undefined || failures.count === 0) return []
    const { count, lastAt, lastError } = failures
    return [{ queue, count, lastAt: new Date(lastAt).toISOString(), ...(lastError !== undefined && { lastError }) }]
  })
}
