/** The figures of a run, for people and for machines. */
import type { Outcome, RunResult } from './run-result.ts'

type Cell = (outcome: Outcome) => string | number | undefined

const columns: readonly (readonly [title: string, cell: Cell])[] = [
  ['scenario', ({ name }) => name],
  ['jobs acked', ({ verdict }) => verdict.acked],
  ['lost', ({ verdict }) => verdict.lost],
  ['doubled', ({ verdict }) => verdict.doubled],
  ['wasted attempts', ({ verdict }) => verdict.wastedAttempts],
  ['first accept ms', ({ verdict }) => verdict.firstAcceptMs],
  ['first done ms', ({ verdict }) => verdict.firstDoneMs],
  ['every client ms', ({ verdict }) => verdict.everyClientMs],
  ['longest gap ms', ({ verdict }) => verdict.longestGapMs],
  ['failed requests', ({ verdict }) => verdict.failedRequests],
  ['whole again ms', ({ wholeAfterMs }) => wholeAfterMs],
]

/** A Markdown table, then whatever is wrong. */
export function toTable({ outcomes, skipped, broken }: RunResult): string {
  const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  const lines = [
    row(columns.map(([title]) => title)),
    row(columns.map((_, index) => (index === 0 ? '---' : '---:'))),
    ...outcomes.map(outcome => row(columns.map(([, cell]) => format(cell(outcome))))),
    ...broken.map(({ name, because }) => row([name, `broke off: ${because}`, ...columns.slice(2).map(() => '')])),
    ...skipped.map(({ name, because }) => row([name, `skipped: ${because}`, ...columns.slice(2).map(() => '')])),
  ]
  const remarks = outcomes.flatMap(({ name, faults, notes }) =>
    [...faults, ...notes].map(fault => `- ${name}: ${fault}`),
  )
  return `${[...lines, ...(remarks.length > 0 ? ['', ...remarks] : [])].join('\n')}\n`
}

const format = (value: string | number | undefined): string =>
  value === undefined ? '–' : typeof value === 'number' ? value.toLocaleString('en-US') : value

/** Without a first accept or a first done those fields are null. */
export function toJson({ network, outcomes, skipped, broken, logs }: RunResult): object {
  return {
    scenarios: outcomes.map(({ name, verdict, wholeAfterMs, faults, notes }) => ({
      name,
      acked: verdict.acked,
      lost: verdict.lost,
      doubled: verdict.doubled,
      wastedAttempts: verdict.wastedAttempts,
      firstAcceptMs: verdict.firstAcceptMs ?? null,
      firstDoneMs: verdict.firstDoneMs ?? null,
      everyClientMs: verdict.everyClientMs ?? null,
      longestGapMs: verdict.longestGapMs,
      failedRequests: verdict.failedRequests,
      failures: verdict.failures,
      reread: verdict.reread,
      wholeAfterMs,
      faults,
      notes,
    })),
    skipped,
    broken,
    network,
    ...(logs !== undefined && { logs }),
  }
}
