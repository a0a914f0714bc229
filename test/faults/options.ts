/** What may be said on the command line. */
import { parseArgs } from 'node:util'
import type { Network } from './engine/network.ts'

export interface FaultOptions {
  readonly json: boolean
  readonly short: boolean
  readonly list: boolean
  readonly keep: boolean
  readonly write: boolean
  readonly help: boolean
  readonly only: readonly string[]
  readonly jobsPerSecond: number
  readonly network?: Network['kind']
  readonly cli?: string
}

export const usage = `Usage: npm run faults -- [options]

  --short              a telling subset, under 4 minutes
  --only <name>        this scenario; can be given several times
  --list               the scenarios, and what they do
  --json               one JSON object as the last line
  --write              put the table into docs/reliability.md
  --keep               keep the logs, and say where (they are kept anyway when something is wrong)
  --jobs-per-second N  of all clients together; 320 unless told
  --network <kind>     namespaces or loopback; unless told, namespaces where they are allowed
  --cli <file>         test this build of the command line instead of dist/cli.js
  --help               this text

Exit codes: 0 nothing lost, doubled or otherwise wrong; 1 something was, or the run failed; 2 wrong options; 130 interrupted
`

/** @throws TypeError that names the fault */
export function readOptions(args: readonly string[]): FaultOptions {
  const flag = { type: 'boolean', default: false } as const
  const { values } = parseArgs({
    args: [...args],
    options: {
      json: flag,
      short: flag,
      list: flag,
      keep: flag,
      write: flag,
      help: flag,
      only: { type: 'string', multiple: true, default: [] },
      'jobs-per-second': { type: 'string', default: '320' },
      network: { type: 'string' },
      cli: { type: 'string' },
    },
  })
  const { 'jobs-per-second': rate, network, cli, ...rest } = values
  const jobsPerSecond = Number(rate)
  if (!Number.isInteger(jobsPerSecond) || jobsPerSecond < 1 || jobsPerSecond > 10_000)
    throw new TypeError(`--jobs-per-second takes a whole number from 1 to 10000, not "${rate}"`)
  if (network !== undefined && network !== 'namespaces' && network !== 'loopback')
    throw new TypeError(`--network is namespaces or loopback, not "${network}"`)
  return { ...rest, jobsPerSecond, ...(network !== undefined && { network }), ...(cli !== undefined && { cli }) }
}
