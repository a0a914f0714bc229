/**
 * muster.yaml: the queues beside `default`, each with the settings of its pool. Every fault is named with its place.
 */
import { existsSync, readFileSync } from 'node:fs'
import { parse as parseYaml } from 'yaml'
import { didYouMean } from './nearest.ts'

export const queueNamePattern = /^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$/

export interface QueuesFile {
  /** Absolute; need not exist. */
  readonly file: string
  /** What a queue takes. */
  readonly known: readonly string[]
  /** Reads one of these; throws an Error whose message completes "KEY …". */
  readonly parse: (key: string, given: string) => unknown
  /** Faults are added here. */
  readonly faults: string[]
}

/** @returns by queue name, what the file says of it */
export function readQueuesFile(context: QueuesFile): Record<string, Record<string, unknown>> {
  const { file, faults } = context
  const queues: Record<string, Record<string, unknown>> = {}
  if (!existsSync(file)) return queues
  for (const [queue, given] of Object.entries(readQueuesOf(file, faults))) {
    if (queueNamePattern.test(queue)) queues[queue] = readQueue(`${file}: queues.${queue}`, given, context)
    else faults.push(`${file}: queue "${queue}" needs a name of a-z, 0-9, - and _, at most 64 long`)
  }
  return queues
}

function readQueuesOf(file: string, faults: string[]): Record<string, unknown> {
  let document: unknown
  try {
    document = parseYaml(readFileSync(file, 'utf8')) ?? {}
  } catch (error) {
    faults.push(`${file} cannot be read: ${(error as Error).message}`)
    return {}
  }
  if (!isMapping(document)) {
    faults.push(`${file} must be a mapping with the key "queues"`)
    return {}
  }
  for (const key of Object.keys(document))
    if (key !== 'queues') faults.push(`${file}: "${key}" is not known; only "queues" is`)
  const queues = document.queues ?? {}
  if (isMapping(queues)) return queues
  faults.push(`${file}: "queues" must be a mapping from queue name to its settings`)
  return {}
}

function readQueue(where: string, given: unknown, { known, parse, faults }: QueuesFile): Record<string, unknown> {
  if (given === null) return {}
  if (!isMapping(given)) {
    faults.push(`${where} must be a mapping`)
    return {}
  }
  const queue: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(given)) {
    if (!known.includes(key)) {
      faults.push(`${where}.${key} is not known${didYouMean(key, known)}; a queue takes ${known.join(', ')}`)
      continue
    }
    try {
      queue[key] = parse(key, String(value))
    } catch (error) {
      faults.push(`${where}.${key} ${(error as Error).message} (it is "${String(value)}")`)
    }
  }
  return queue
}

const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
