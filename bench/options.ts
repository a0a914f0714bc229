/** What may be said on the command line. */
import { parseArgs } from 'node:util'

export interface BenchOptions {
  readonly json: boolean
  readonly quick: boolean
  /** Wins over `quick`. */
  readonly short: boolean
  readonly help: boolean
  /** Folder for CPU profiles of the node and the worker. */
  readonly profile?: string
}

export const usage = `Usage: npm run bench -- [options]

  --quick             fewer and shorter rounds, for a look in between
  --short             seconds, to see that it runs; the figures mean nothing
  --json              one JSON object as the last line
  --profile <folder>  write CPU profiles of the node and the worker (*.cpuprofile) there; costs speed
  --help              this text
`

/** @throws TypeError that names the fault */
export function readOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      short: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      profile: { type: 'string' },
    },
  })
  const { profile, ...flags } = values
  return profile === undefined ? flags : { ...flags, profile }
}
