/**
 * What the settings say of each queue: its pool, and what its instances are. Given for all, or by queue in muster.yaml.
 */
import { resolve } from 'node:path'
import { readQueuesFile } from './queues-file.ts'

/** How many workers one queue's pool may have, and how that is chosen. */
export interface PoolSettings {
  readonly minWorkers: number
  readonly maxWorkers: number
  readonly policy: 'target-wait' | 'jobs-per-worker' | 'fixed'
  readonly jobsPerWorker: number
  readonly fixedWorkers: number
  readonly targetWaitMs: number
  readonly idleTimeoutMs: number
  readonly bootTimeoutMs: number
  readonly slots: number
}

/** What instances a queue's pool is made of. No part of the decision how many. */
export interface PlacementSettings {
  readonly instanceTypes: readonly string[]
  readonly spotPercent: number
  readonly handlerMetadata: 'no' | 'yes'
}

/** How jobs of a queue run. */
export interface RunSettings {
  readonly isolation: 'slot' | 'process'
}

/** The fields of a pool in muster.yaml, and the setting whose rule (and default) each one follows. */
export const poolFields = {
  minWorkers: 'minWorkers',
  maxWorkers: 'maxWorkers',
  policy: 'policy',
  jobsPerWorker: 'jobsPerWorker',
  fixedWorkers: 'fixedWorkers',
  targetWaitMs: 'targetWaitMs',
  idleTimeoutMs: 'idleTimeoutMs',
  bootTimeoutMs: 'bootTimeoutMs',
  slots: 'workerSlots',
} as const satisfies Record<keyof PoolSettings, string>

/** The same for its placement. */
export const placementFields = {
  instanceTypes: 'ec2InstanceTypes',
  spotPercent: 'ec2SpotPercent',
  handlerMetadata: 'ec2HandlerMetadata',
} as const satisfies Record<keyof PlacementSettings, string>

export const runFields = { isolation: 'isolation' } as const satisfies Record<keyof RunSettings, string>

type Queue = PoolSettings & PlacementSettings & RunSettings

export interface QueueSettings {
  /** By queue name; `default` is always there. */
  readonly pools: Readonly<Record<string, PoolSettings>>
  /** What a queue's instances are; by queue name, like pools. */
  readonly placements: Readonly<Record<string, PlacementSettings>>
  /** How a queue's jobs run; by queue name, like pools. */
  readonly runs: Readonly<Record<string, RunSettings>>
}

export const noQueues: QueueSettings = { pools: {}, placements: {}, runs: {} }

interface ReadQueuesOptions {
  /** All other settings, which hold for a queue that does not say. */
  readonly values: Readonly<Record<string, unknown>>
  /** The setting whose rule and value each field of a queue follows. */
  readonly sources: Readonly<Record<string, string>>
  /** Throws an Error whose message completes "NAME …". */
  readonly parse: (key: string, given: string) => unknown
  /** Gets what is wrong. */
  readonly faults: string[]
}

/** Reads the queues of muster.yaml. */
export function readQueues({ values, sources, parse, faults }: ReadQueuesOptions): QueueSettings {
  const base = mapValues(sources, source => values[source]) as unknown as Queue
  const file = resolve(values.configFile as string)
  const read = readQueuesFile({ file, known: Object.keys(sources), parse, faults })
  const queues: Record<string, Queue> = { default: base, ...mapValues(read, queue => ({ ...base, ...queue })) }
  for (const [queue, { minWorkers, maxWorkers }] of Object.entries(queues)) {
    if (minWorkers > maxWorkers)
      faults.push(`queue ${queue}: minWorkers (${minWorkers}) is above maxWorkers (${maxWorkers})`)
  }
  return {
    pools: mapValues(queues, queue => only(queue, poolFields) as PoolSettings),
    placements: mapValues(queues, queue => only(queue, placementFields) as PlacementSettings),
    runs: mapValues(queues, queue => only(queue, runFields) as RunSettings),
  }
}

/** The part of a queue's settings that a table of fields names. */
const only = (queue: Queue, table: Readonly<Record<string, unknown>>): object =>
  Object.fromEntries(Object.entries(queue).filter(([key]) => Object.hasOwn(table, key)))

const mapValues = <V, R>(record: Readonly<Record<string, V>>, map: (value: V) => R): Record<string, R> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]))
