/** `npm run bench`: what Muster's own work costs, beside raw BullMQ and Python in the same run. See README.md. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type BenchOptions, readOptions, usage } from './options.ts'
import { fullPlan, type Plan, quickPlan, shortPlan } from './plan.ts'
import { Processes } from './processes.ts'
import { type Summary, summarize, toJson, toTable } from './report.ts'
import { runBench } from './run-bench.ts'
import { startStack } from './stack.ts'

const say = (text: string): void => void process.stderr.write(`${text}\n`)
const print = (text: string): void => void process.stdout.write(text)

async function bench(options: BenchOptions): Promise<void> {
  const profile = options.profile === undefined ? undefined : resolve(options.profile)
  if (profile !== undefined) await mkdir(profile, { recursive: true })
  const dataDir = await mkdtemp(join(tmpdir(), 'muster-bench-'))
  const processes = new Processes()
  const cleanUp = async (): Promise<void> => {
    await processes.stop()
    await rm(dataDir, { recursive: true, force: true })
  }
  const interruption = interrupted()
  try {
    const measured = measure(options, processes, dataDir, profile)
    measured.catch(() => undefined) // after an interruption nobody waits for it
    const summary = await Promise.race([measured, interruption])
    if (summary === undefined) {
      say('Stopping…')
      process.exitCode = 130
      return
    }
    print(`\n${toTable(summary)}`)
    if (options.json) print(`${JSON.stringify(toJson(summary))}\n`)
  } finally {
    await cleanUp()
  }
}

async function measure(
  options: BenchOptions,
  processes: Processes,
  dataDir: string,
  profile: string | undefined,
): Promise<Summary> {
  say('starting a node and its Redis')
  const stack = await startStack(processes, dataDir, profile)
  try {
    return summarize(await runBench({ processes, stack, plan: planFor(options), say }))
  } finally {
    stack.redis.disconnect()
  }
}

const planFor = ({ quick, short }: BenchOptions): Plan => (short ? shortPlan : quick ? quickPlan : fullPlan)

/** Resolves at the first signal to stop; later ones are swallowed, since stopping has its own time limits. */
function interrupted(): Promise<undefined> {
  return new Promise(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve(undefined))
  })
}

/** @returns undefined when they are wrong, and it was said */
function optionsOrFault(): BenchOptions | undefined {
  try {
    return readOptions(process.argv.slice(2))
  } catch (error) {
    say(`bench: ${(error as Error).message}\n\n${usage}`)
    return undefined
  }
}

try {
  const options = optionsOrFault()
  if (options === undefined) process.exitCode = 2
  else if (options.help) print(usage)
  else await bench(options)
} catch (error) {
  say(`bench: ${(error as Error).stack ?? String(error)}`)
  process.exitCode = 1
}
// What an interrupted part still waits for must not keep the process.
process.exit()
