/**
 * The settings of the fleet in a file of their own (MUSTER_FLEET_SETTINGS_FILE): what a running node takes over when it
 * changes. Lines NAME=value; empty lines and lines that begin with # say nothing. What stands there goes before the
 * environment.
 */
import { readFileSync } from 'node:fs'
import type { PlacementSettings, PoolSettings } from './queues.ts'

/** What the autoscaler reads anew at each decision. Other settings of a pool count from the start of a node on. */
export const livePoolFields = [
  'minWorkers',
  'maxWorkers',
  'policy',
  'jobsPerWorker',
  'fixedWorkers',
  'targetWaitMs',
  'idleTimeoutMs',
] as const satisfies (keyof PoolSettings)[]

/** The same of what its instances are. */
export const livePlacementFields = ['instanceTypes', 'spotPercent'] as const satisfies (keyof PlacementSettings)[]

/**
 * Reads the file.
 * @param file empty: there is none
 * @param names the variables that may stand there
 * @param faults gets what is wrong with it
 */
export function readFleetSettings(file: string, names: readonly string[], faults: string[]): Record<string, string> {
  if (file === '') return {}
  let content: string
  try {
    content = readFileSync(file, 'utf8')
  } catch (error) {
    faults.push(`MUSTER_FLEET_SETTINGS_FILE cannot be read: ${(error as Error).message}`)
    return {}
  }
  const given: Record<string, string> = {}
  for (const [index, line] of content.split('\n').entries()) {
    const text = line.trim()
    if (text === '' || text.startsWith('#')) continue
    const [, name = '', value = ''] = /^(\w+)\s*=(.*)$/.exec(text) ?? []
    if (names.includes(name)) given[name] = value.trim()
    else
      faults.push(
        `${file}: line ${index + 1} is no setting of a fleet (${name === '' ? 'NAME=value' : name}); it takes ${names.join(', ')}`,
      )
  }
  return given
}
