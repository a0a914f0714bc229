/** `npm run drive`: see options.ts and README.md. */
import { fileURLToPath } from 'node:url'
import { type DriveResult, drive } from './drive.ts'
import { kinds } from './kinds.ts'
import { moves } from './moves/catalogue.ts'
import { type DriveOptions, readOptions, usage } from './options.ts'

/** Compiled, this file lies in dist-drive/ of the tree. */
const root = fileURLToPath(new URL('../', import.meta.url))
const print = (line: string): void => void process.stdout.write(`${line}\n`)
const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** With their histories; what comes after them is mostly more of the same. */
const shownOfAKind = 4

async function main(): Promise<number> {
  let options: DriveOptions
  try {
    options = readOptions(process.argv.slice(2), process.env)
  } catch (error) {
    say(`drive: ${(error as Error).message}\n\n${usage}`)
    return 2
  }
  if (options.help) {
    print(`${usage}\nMoves: ${names(moves)}\nKinds: ${names(kinds)}`)
    return 0
  }
  const again = commandOf(options)
  print(`seed ${options.seed}: ${again}`)
  const result = await drive(options, root, say)
  report(result, again)
  return result.faults.length === 0 ? 0 : 1
}

function report({ faults, model, counts, peakNodeBytes, refusals, endedBy }: DriveResult, again: string): void {
  const kindCounts = new Map<string, number>()
  for (const { kind, at, sentence, workId } of faults) {
    const nth = (kindCounts.get(kind) ?? 0) + 1
    kindCounts.set(kind, nth)
    print(
      `${nth > shownOfAKind ? '' : '\n'}${kind.toUpperCase()} ${workId ?? ''} at ${model.history.time(at).trim()}: ${sentence}`,
    )
    if (nth > shownOfAKind) continue
    const lines = workId === undefined ? model.history.latest(8) : model.history.of(workId)
    for (const line of lines) print(`  ${line}`)
  }
  const made = [...counts].sort(([, one], [, other]) => other - one).map(([name, count]) => `${count} ${name}`)
  print(`\nmoves: ${made.join(', ')}`)
  const refused = Object.entries(refusals).map(([code, count]) => `${count} ${code}`)
  print(`refused for a while: ${refused.join(', ') || 'nothing'}`)
  const states = new Map<string, number>()
  for (const { state } of model.jobs.values()) states.set(state, (states.get(state) ?? 0) + 1)
  const ends = [...states].map(([state, count]) => `${count} ${state}`).join(', ')
  print(`${model.jobs.size} jobs (${ends}); the node held up to ${Math.round(peakNodeBytes / 2 ** 20)} MiB`)
  print(`the moves were ended by ${endedBy}`)
  print(faults.length === 0 ? 'nothing was wrong' : `${faults.length} faults. Again: ${again}`)
}

const names = (list: readonly { readonly name: string; readonly group: string }[]): string =>
  list.map(({ name, group }) => `${name} (${group})`).join(', ')

function commandOf({ seed, minutes, users, twoNodes, url, only, without }: DriveOptions): string {
  const quoted = (list: readonly string[]): string => `"${list.join(',')}"`
  return [
    `npm run drive -- --seed ${seed} --minutes ${minutes} --users ${users}`,
    ...(twoNodes ? ['--two-nodes'] : []),
    ...(url === undefined ? [] : [`--url ${url}`]),
    ...(only.length === 0 ? [] : [`--only ${quoted(only)}`]),
    ...(without.length === 0 ? [] : [`--without ${quoted(without)}`]),
  ].join(' ')
}

try {
  process.exit(await main())
} catch (error) {
  say(`drive: ${(error as Error).stack}${describe((error as Error).cause)}`)
  process.exit(2)
}

function describe(cause: unknown): string {
  return cause instanceof Error ? `\ncaused by ${cause.stack}${describe(cause.cause)}` : ''
}
