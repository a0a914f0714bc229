/** A fleet for tests: real Redis, instances in memory, queues that are what a test says, and time that it moves on. */
import type { Redis } from 'ioredis'
import { pino } from 'pino'
import type { Test } from 'tap'
import type { WorkerDescription } from '../../src/contract/worker-protocol.ts'
import { createFleet, type FleetOptions } from '../../src/fleet/fleet.ts'
import type { FleetQueues, QueueLoad } from '../../src/fleet/fleet-queues.ts'
import { Notifier } from '../../src/notifier.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { MemoryProvider } from './memory-provider.ts'
import { until } from './until.ts'

export const silent = pino({ level: 'silent' })
export const settings = readSettings({
  MUSTER_LEASE_MS: '15000',
  MUSTER_AUTOSCALE_INTERVAL_MS: '3600000',
  MUSTER_MAX_WORKERS: '4',
  MUSTER_WORKER_SLOTS: '2',
  // As long as a job is taken to need that was never measured: a slot for each.
  MUSTER_TARGET_WAIT_MS: '500',
  MUSTER_BOOT_TIMEOUT_MS: '20000',
  MUSTER_CONFIG_FILE: '/nowhere/muster.yaml',
})
export const silentAfterMs = 30_000

/** Time that a test moves on by hand. */
export class Clock {
  offset = 0
  readonly now = (): number => Date.now() + this.offset
}

export class FakeQueues implements FleetQueues {
  waiting = 0
  finishedCount = 0
  busyMs = 0
  paused = false
  readonly leases = new Map<string, number>()
  readonly returned: string[] = []
  /** Those of them under whose jobs they were lost. */
  readonly lost: string[] = []

  async load(): Promise<QueueLoad> {
    const running = [...this.leases.values()].reduce((sum, count) => sum + count, 0)
    const { waiting, finishedCount, busyMs, paused } = this
    return { waiting, dueDelayed: 0, running, finishedCount, busyMs, paused }
  }

  async leasesByWorker(): Promise<Map<string, number>> {
    return new Map(this.leases)
  }

  async returnLeasesOf(_queue: string, workerId: string, wasLost: boolean): Promise<number> {
    const count = this.leases.get(workerId) ?? 0
    this.leases.delete(workerId)
    if (count > 0) this.returned.push(workerId)
    if (count > 0 && wasLost) this.lost.push(workerId)
    this.waiting += count
    return count
  }
}

export const worker = (workerId: string, more: Partial<WorkerDescription> = {}): WorkerDescription => ({
  workerId,
  queue: 'default',
  slots: 2,
  types: ['sha512'],
  ...more,
})

export function setUp(t: Pick<Test, 'teardown'>, redis: Redis, options: Partial<FleetOptions> = {}) {
  const clock = new Clock()
  const provider = new MemoryProvider({ clock: clock.now, endsAtOnce: false })
  const queues = new FakeQueues()
  const notifier = new Notifier()
  const fleet = createFleet({ settings, redis, queues, notifier, log: silent, provider, clock: clock.now, ...options })
  t.teardown(() => fleet.stop())
  /** Workers of all instances register, or say again that they are there. */
  const beat = async (): Promise<void> => {
    for (const { id } of await provider.list()) {
      const workerId = `w-${id}`
      await fleet.registry.heartbeat(worker(workerId, { instanceId: id }), 'ready', queues.leases.get(workerId) ?? 0)
    }
  }
  return { clock, provider, queues, notifier, fleet, beat }
}

/** Waits until the probe finds something. */
export async function eventually<T>(probe: () => T | Promise<T>): Promise<T> {
  let value = await probe()
  await until(async () => {
    value ||= await probe()
    return Boolean(value)
  })
  return value
}

/** The same, started, and so quick that nobody has to ring. */
export const ticking = (t: Pick<Test, 'teardown'>, redis: Redis, options: Partial<FleetOptions> = {}) => {
  const parts = setUp(t, redis, { settings: { ...settings, autoscaleIntervalMs: 50 }, ...options })
  parts.fleet.start()
  return parts
}
