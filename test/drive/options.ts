/** What may be said on the command line. */
import { randomBytes } from 'node:crypto'
import { parseArgs } from 'node:util'

export interface DriveOptions {
  readonly seed: string
  /** How long moves are made; what comes after it (until all is collected) takes as long as it takes. */
  readonly minutes: number
  readonly users: number
  readonly twoNodes: boolean
  readonly url: string | undefined
  readonly key: string
  /** Groups or names of moves and kinds. */
  readonly only: readonly string[]
  readonly without: readonly string[]
  readonly keep: boolean
  readonly maxFaults: number
  readonly help: boolean
}

export const usage = `Usage: npm run drive -- [options]

Works a deployment as many users would at once, kills its processes meanwhile, and compares all that is answered with a
model. The seed determines which moves are made, and with what; real time does the rest.

  --seed <text>      repeats the moves of another drive (by chance when left out; it is printed)
  --minutes <n>      how long moves are made (2); then all is collected and counted
  --users <n>        moves under way at once (12)
  --two-nodes        two nodes on three replicas of Redis, in place of one node with its own
  --url <url>        a deployment that runs already: nothing is killed there. It has the queues "second" and "foreign", the
                     handlers of test/drive/handlers.mjs, and a worker examples/worker.py for the queue "foreign" (or give
                     --without foreign). Nobody else may submit meanwhile; all results there are collected. Its key, with
                     all roles: MUSTER_API_KEY
  --only <names>     only these groups or names of moves and kinds of jobs, separated by commas
  --without <names>  not these; "payload files": does not count the files that are left at the end
  --max-faults <n>   ends early after so many (20)
  --keep             leaves the data directory and the logs
  --help             this text, and the names

Exit code: 0 nothing was wrong, 1 something was, 2 it could not be run.
`

/** @throws Error that names the fault */
export function readOptions(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): DriveOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seed: { type: 'string' },
      minutes: { type: 'string', default: '2' },
      users: { type: 'string', default: '12' },
      'two-nodes': { type: 'boolean', default: false },
      url: { type: 'string' },
      only: { type: 'string', default: '' },
      without: { type: 'string', default: '' },
      'max-faults': { type: 'string', default: '20' },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  return {
    seed: values.seed ?? randomBytes(4).toString('hex'),
    minutes: positive('--minutes', values.minutes),
    users: Math.ceil(positive('--users', values.users)),
    twoNodes: values['two-nodes'],
    url: values.url?.replace(/\/+$/, ''),
    key: environment.MUSTER_API_KEY ?? '',
    only: words(values.only),
    without: words(values.without),
    keep: values.keep,
    maxFaults: Math.ceil(positive('--max-faults', values['max-faults'])),
    help: values.help,
  }
}

const words = (text: string): string[] =>
  text
    .split(',')
    .map(word => word.trim())
    .filter(word => word !== '')

function positive(name: string, text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new Error(`${name} must be a number above 0`)
  return value
}

/** What is to be used of moves or kinds. */
export function chosen<T extends { readonly name: string; readonly group: string }>(
  list: readonly T[],
  { only, without }: Pick<DriveOptions, 'only' | 'without'>,
): T[] {
  const isNamed = ({ name, group }: T, names: readonly string[]): boolean =>
    names.includes(name) || names.includes(group)
  const some = list.filter(item => isNamed(item, only))
  // A list that names only moves leaves all kinds of jobs in, and the other way round.
  return (some.length > 0 ? some : list).filter(item => !isNamed(item, without))
}
