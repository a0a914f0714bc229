/** `npm run faults`: breaks a real deployment in every way on the list, and prints what became of the work. See README.md. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { runAll } from './engine/run-all.ts'
import { isSound } from './engine/run-result.ts'
import type { Scenario } from './engine/scenario.ts'
import { toJson, toTable } from './engine/scorecard.ts'
import { type FaultOptions, readOptions, usage } from './options.ts'
import { scenarios } from './scenarios.ts'
import { circumstances, writeScorecard } from './write-scorecard.ts'

const say = (line: string): void => void process.stderr.write(`${line}\n`)
const print = (text: string): void => void process.stdout.write(text)

async function faults(options: FaultOptions): Promise<number> {
  const chosen = choose(options)
  const cli = resolve(options.cli ?? 'dist/cli.js')
  if (!existsSync(cli)) throw new Error(`${cli} is missing: run "npm run build"`)
  const { signal, forced } = interruption()
  const running = runAll({
    scenarios: chosen,
    cli,
    keepLogs: options.keep,
    jobsPerSecond: options.jobsPerSecond,
    say,
    signal,
    ...(options.network !== undefined && { network: options.network }),
  })
  try {
    const result = await Promise.race([running, forced])
    const table = toTable(result)
    print(`${circumstances(new Date())}\n\n${table}`)
    if (options.write) await writeScorecard(table, new Date())
    if (options.json) print(`${JSON.stringify(toJson(result))}\n`)
    return isSound(result) ? 0 : 1
  } catch (error) {
    if (signal.aborted) return 130
    throw error
  }
}

/** @throws TypeError when there is none of that name */
function choose({ short, only }: FaultOptions): readonly Scenario[] {
  for (const name of only)
    if (!scenarios.some(scenario => scenario.name === name))
      throw new TypeError(`there is no scenario "${name}"; --list names them`)
  if (only.length > 0) return scenarios.filter(({ name }) => only.includes(name))
  return short ? scenarios.filter(scenario => scenario.short) : scenarios
}

/** The first signal ends the run in order; the second one at once, and the next run cleans up. */
function interruption(): { signal: AbortSignal; forced: Promise<never> } {
  const controller = new AbortController()
  const forced = new Promise<never>((_resolve, reject) => {
    const onSignal = (): void => {
      if (controller.signal.aborted) reject(new Error('interrupted twice'))
      say('Stopping: everything that was started is taken away…')
      controller.abort()
    }
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
  })
  return { signal: controller.signal, forced }
}

try {
  const options = readOptions(process.argv.slice(2))
  if (options.help) print(usage)
  else if (options.list)
    for (const { name, what, short } of scenarios) print(`${name.padEnd(40)} ${short ? '[short] ' : ''}${what}\n`)
  else process.exitCode = await faults(options)
} catch (error) {
  const isUsage = error instanceof TypeError && !error.stack?.includes('/engine/')
  say(isUsage ? `faults: ${error.message}\n\n${usage}` : `faults: ${(error as Error).stack ?? String(error)}`)
  process.exitCode = isUsage ? 2 : 1
}
// Children of a run that failed must not keep the process.
process.exit()
