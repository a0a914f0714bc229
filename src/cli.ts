#!/usr/bin/env node
/** The `muster` command: every subcommand, listed once. */
import { Command, Option } from 'commander'
import { pino } from 'pino'
import { StartupError } from './errors.ts'
import { describeSettings, readSettings, type Settings, unknownVariables, variableName } from './settings.ts'
import { version } from './version.ts'

const program = new Command('muster').description('A job server that musters its own workers').version(version)

const handlers = new Option('--handlers <file>', 'JavaScript file with your own handlers').env('MUSTER_HANDLERS')

program
  .command('node')
  .description('start a node: the API, the queue and the autoscaler')
  .addOption(handlers)
  .option('--port <port>', 'port to listen on (MUSTER_PORT)')
  .option('--host <address>', 'address to listen on (MUSTER_HOST)')
  .option('--data-dir <folder>', 'where jobs, payloads and logs are kept (MUSTER_DATA_DIR)')
  .action(async (options: Record<string, string>) => await runNode(settingsWith(options)))

program
  .command('worker')
  .description('start a worker: claims jobs from the nodes and runs them')
  .addOption(handlers)
  .option('--queue <name>', 'the queue to work for', process.env.MUSTER_QUEUE ?? 'default')
  .option('--node-urls <urls>', 'nodes to talk to, separated by commas (MUSTER_NODE_URLS)')
  .option('--slots <count>', 'jobs to run at once (MUSTER_WORKER_SLOTS)')
  .action(async ({ queue, slots, ...options }: Record<string, string>) => {
    const settings = settingsWith({ ...options, ...(slots !== undefined && { workerSlots: slots }) })
    const { runWorker } = await import('./worker/run-worker.ts')
    process.exitCode = await runWorker({ settings, queue: queue ?? 'default', log: makeLog(settings) })
  })

program
  .command('settings')
  .description('print the settings in force, secrets masked')
  .option('--json', 'as one JSON object')
  .action(({ json }: { json?: boolean }) => {
    const lines = describeSettings(settingsWith({}))
    if (json) return print(JSON.stringify(Object.fromEntries(lines.map(({ name, value }) => [name, value])), null, 2))
    for (const { name, value, help } of lines) print(`${`${name}=${value}`.padEnd(44)} # ${help}`)
  })

program
  .command('fleet')
  .description('look at the fleet')
  .command('explain')
  .description('say why the fleet has its size: the latest decision of each pool, or the one with this id')
  .argument('[decisionId]', 'the id of a decision, as GET /fleet/decisions lists it')
  .option('--url <url>', 'the node to ask (MUSTER_NODE_URLS)')
  .action(async (id: string | undefined, { url }: { url?: string }) => {
    const { nodeUrls } = settingsWith({ nodeUrls: url })
    const { runExplain } = await import('./fleet/explain-command.ts')
    process.exitCode = await runExplain({ urls: nodeUrls, print, ...(id !== undefined && { id }) })
  })

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** Options of the command line go before the environment. */
function settingsWith(options: Readonly<Record<string, string | undefined>>): Settings {
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return readSettings({
    ...process.env,
    ...Object.fromEntries(given.map(([key, value]) => [variableName(key), value])),
  })
}

/** To a person one readable line an event, to a machine JSON. */
function makeLog(settings: Settings) {
  const target = process.stdout.isTTY
    ? { target: 'pino-pretty', options: { colorize: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss' } }
    : undefined
  return pino({
    level: settings.logLevel,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    ...(target && { transport: target }),
  })
}

async function runNode(settings: Settings): Promise<void> {
  const log = makeLog(settings)
  for (const name of unknownVariables(process.env))
    log.warn(`${name} is set but is no setting; "muster settings" lists them`)
  // Only now: a worker needs none of a node's parts, nor the packages beneath them.
  const { startNode } = await import('./node.ts')
  const node = await startNode(settings, log)
  process.stdout.write(welcome(node.url))
  await untilSignalled()
  process.stdout.write('\nStopping: what is under way is finished first. Ctrl-C again stops at once.\n')
  const forced = untilSignalled().then(() => process.exit(130))
  await Promise.race([node.stop(), forced])
  process.exit(0)
}

function untilSignalled(): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, done)
      resolve()
    }
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, done)
  })
}

const welcome = (url: string): string => `
Muster is ready at ${url}   (API: ${url}/docs, stop: Ctrl-C)

Try it: hash some data 1000 times, then pull the result.

  echo -n 'hello' | curl -sS -X PUT '${url}/enqueue?iterations=1000' -H 'Content-Type: application/octet-stream' --data-binary @-
  curl -sS -X POST '${url}/pullCompleted?top=10&waitMs=10000'
  curl -sS '${url}/status'

`

// Whoever reads this may stop reading (| head): that is no fault.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

try {
  await program.parseAsync()
} catch (error) {
  process.stderr.write(
    error instanceof StartupError
      ? `muster: ${error.message}\n`
      : `muster: ${(error as Error).stack ?? String(error)}\n`,
  )
  process.exit(1)
}
