/** Tools that only some machines have: where one is missing a test says so and is skipped; in CI it fails. */
import { spawnSync } from 'node:child_process'
import type { Test } from 'tap'

/** @param howToGetIt a command */
export function haveTool(t: Test, tool: string, howToGetIt: string): boolean {
  if (spawnSync('sh', ['-c', 'command -v "$0"', tool]).status === 0) return true
  const message = `${tool} is missing. Get it with: ${howToGetIt}`
  if (process.env.CI !== undefined && process.env.CI !== '') t.fail(message)
  else t.comment(`NOT CHECKED: ${message}`)
  return false
}
