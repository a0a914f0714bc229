/** What a check of `muster doctor` reports: one finding each, and the table that shows them. */
import { colored, type Style } from '../terminal.ts'

export type Outcome = 'ok' | 'warn' | 'fail' | 'skipped'

export interface Finding {
  /** Stable: scripts may look for it. */
  readonly name: string
  readonly outcome: Outcome
  /** What was seen; of a check that was skipped, why. */
  readonly detail: string
  /** How to mend it; only with warn and fail. */
  readonly action?: string
}

export const ok = (name: string, detail: string): Finding => ({ name, outcome: 'ok', detail })
export const skipped = (name: string, detail: string): Finding => ({ name, outcome: 'skipped', detail })
export const warn = (name: string, detail: string, action: string): Finding => ({
  name,
  outcome: 'warn',
  detail,
  action,
})
export const fail = (name: string, detail: string, action: string): Finding => ({
  name,
  outcome: 'fail',
  detail,
  action,
})

export interface Fault {
  readonly isGrave: boolean
  readonly text: string
}

/** Many places looked at for one thing: the worst of them decides, and all that is wrong is told. */
export function sum(name: string, faults: readonly Fault[], action: string, whenWell: string): Finding {
  if (faults.length === 0) return ok(name, whenWell)
  const detail = faults.map(({ text }) => text).join('; ')
  return faults.some(({ isGrave }) => isGrave) ? fail(name, detail, action) : warn(name, detail, action)
}

/** Findings as a table for people, with what to do under each that needs it, and one line that closes it. */
const signs: Record<Outcome, string> = { ok: '✓', warn: '!', fail: '✗', skipped: '·' }
const styles: Record<Outcome, Style> = { ok: 'green', warn: 'yellow', fail: 'red', skipped: 'dim' }

export function renderFindings(findings: readonly Finding[]): string[] {
  const width = Math.max(...findings.map(({ name }) => name.length))
  const lines = findings.flatMap(({ name, outcome, detail, action }) => {
    const head = `${colored(styles[outcome], signs[outcome])} ${name.padEnd(width)}  ${outcome === 'skipped' ? 'skipped: ' : ''}${detail}`
    return action === undefined ? [head] : [head, `${' '.repeat(width + 4)}→ ${action}`]
  })
  return [...lines, '', closingLine(findings)]
}

function closingLine(findings: readonly Finding[]): string {
  const count = (wanted: Outcome): number => findings.filter(({ outcome }) => outcome === wanted).length
  const [failed, warned, skipped] = [count('fail'), count('warn'), count('skipped')]
  const rest = skipped === 0 ? '' : `, ${skipped} skipped`
  if (failed > 0) return `${failed} to mend, ${warned} to look at${rest}.`
  return warned > 0 ? `Nothing fails; ${warned} to look at${rest}.` : `All is well${rest}.`
}
