/** Findings as a table for people, with what to do under each that needs it, and one line that closes it. */
import { colored, type Style } from '../terminal.ts'
import type { Finding, Outcome } from './finding.ts'

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
