/** What may be said on the command line. */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

export interface RegressionOptions {
  /** Empty: start a node of our own. */
  readonly urls: readonly string[]
  /** Sent as bearer token unless empty. */
  readonly key: string
  readonly queue: string
  /** For one job, from its submission to its outcome. */
  readonly timeoutMs: number
  readonly json: boolean
  readonly help: boolean
}

export const usage = `Usage: npm run regression -- [options]

Pushes recorded jobs of every built-in type through a running deployment and compares what comes back.
Without --url a node is started for it on this machine, and stopped again.

  --url <urls>         nodes of the deployment, separated by commas (MUSTER_NODE_URLS); each job is submitted through one
                       and read through the next
  --key-file <file>    file with an API key with the roles submit, collect and read (or MUSTER_API_KEY)
  --queue <name>       the queue to use (default). Results are read, not collected: use a queue of its own where others
                       collect from the default one
  --timeout <seconds>  for each job, workers that have to be launched included (300)
  --json               one JSON object as the last line
  --help               this text

A private certificate authority is trusted by NODE_EXTRA_CA_CERTS=<file>. Exit code: 0 all passed, 1 some failed, 2 it
could not be run.
`

/** @throws Error that names the fault */
export function readOptions(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): RegressionOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      url: { type: 'string' },
      'key-file': { type: 'string' },
      queue: { type: 'string', default: 'default' },
      timeout: { type: 'string', default: '300' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const seconds = Number(values.timeout)
  if (!Number.isFinite(seconds) || seconds <= 0) throw new Error('--timeout must be a number of seconds above 0')
  const urls = (values.url ?? environment.MUSTER_NODE_URLS ?? '').split(',').map(url => url.trim().replace(/\/+$/, ''))
  const given = urls.filter(url => url !== '')
  for (const url of given)
    if (!/^https?:\/\/[^/]/.test(url)) throw new Error(`--url: "${url}" is no URL like https://host`)
  return {
    urls: given,
    key: values['key-file'] === undefined ? (environment.MUSTER_API_KEY ?? '') : readKey(values['key-file']),
    queue: values.queue,
    timeoutMs: seconds * 1000,
    json: values.json,
    help: values.help,
  }
}

function readKey(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw new Error(`--key-file cannot be read: ${(error as Error).message}`)
  }
}
