/** Where a file cannot be parsed: the SyntaxError of an import does not say; Node's own check of the file does. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const checkWithinMs = 10_000

/** @returns `file:line` and the line, ending in a line break; empty when the file itself can be parsed */
export async function syntaxPlace(path: string): Promise<string> {
  try {
    await promisify(execFile)(process.execPath, ['--check', path], { timeout: checkWithinMs, env: {} })
    return ''
  } catch (error) {
    const told = String((error as { stderr?: unknown }).stderr ?? '')
    const end = told.search(/^\w*Error: /m)
    return end > 0 ? `${told.slice(0, end).trimEnd()}\n` : ''
  }
}
