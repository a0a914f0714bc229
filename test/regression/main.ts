/** `npm run regression`: recorded jobs of every built-in type through a running deployment. See options.ts. */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type RegressionOptions, readOptions, usage } from './options.ts'
import { startOwnNode } from './own-node.ts'
import type { Outcome } from './push-job.ts'
import { readRecordedJobs } from './recorded-jobs.ts'
import { runRegression } from './run-regression.ts'

/** Compiled, this file lies in dist-regression/regression/ of the tree. */
const root = fileURLToPath(new URL('../../', import.meta.url))
const print = (line: string): void => void process.stdout.write(`${line}\n`)
const say = (line: string): void => void process.stderr.write(`${line}\n`)

async function main(): Promise<number> {
  let options: RegressionOptions
  try {
    options = readOptions(process.argv.slice(2), process.env)
  } catch (error) {
    say(`regression: ${(error as Error).message}\n\n${usage}`)
    return 2
  }
  if (options.help) {
    print(usage)
    return 0
  }
  const jobs = await readRecordedJobs(join(root, 'test/regression/jobs'))
  const own = options.urls.length === 0 ? await startOwnNode(join(root, 'dist/cli.js')) : undefined
  const signalled = untilSignalled()
  try {
    const urls = own === undefined ? options.urls : [own.url]
    say(`${jobs.length} recorded jobs through ${urls.join(' and ')}`)
    const run = runRegression({ ...options, jobs, urls, onOutcome: outcome => print(lineOf(outcome)) })
    const outcomes = await Promise.race([run, signalled])
    if (outcomes === undefined) return 130
    const failed = outcomes.filter(({ fault }) => fault !== undefined).length
    print(`\n${outcomes.length - failed} passed, ${failed} failed`)
    if (options.json) print(JSON.stringify({ passed: outcomes.length - failed, failed, outcomes }))
    return failed === 0 ? 0 : 1
  } finally {
    await own?.stop()
  }
}

const lineOf = ({ name, ms, fault }: Outcome): string =>
  `${fault === undefined ? 'passed' : 'FAILED'}  ${name.padEnd(44)} ${String(ms).padStart(7)} ms${fault === undefined ? '' : `\n        ${fault}`}`

function untilSignalled(): Promise<undefined> {
  return new Promise(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(undefined))
  })
}

try {
  process.exit(await main())
} catch (error) {
  say(`regression: ${(error as Error).message}`)
  process.exit(2)
}
