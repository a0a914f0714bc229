/** Puts the table of a run into docs/reliability.md, between its marks. */
import { readFile, writeFile } from 'node:fs/promises'
import { availableParallelism, loadavg } from 'node:os'

const file = 'docs/reliability.md'
const marks = /(<!-- scorecard -->\n)[\s\S]*?(\n<!-- \/scorecard -->)/

/** @throws Error when the page or its marks are not there */
export async function writeScorecard(table: string, at: Date): Promise<void> {
  const text = await readFile(file, 'utf8')
  if (!marks.test(text)) throw new Error(`${file} has no marks for the scorecard`)
  const said = `\n${circumstances(at)}\n\n${table}`
  await writeFile(
    file,
    text.replace(marks, (_all, before, after) => before + said + after),
  )
}

/** Times mean little when others kept the machine busy: said with them. */
export function circumstances(at: Date): string {
  const [, , quarterHour = 0] = loadavg()
  return `Measured on ${at.toISOString().slice(0, 10)}: ${availableParallelism()} cores for all hosts together, load average ${quarterHour.toFixed(1)}.`
}
