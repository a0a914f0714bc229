/**
 * Tests wait for signals and conditions, never for time to pass, and assert what happens and in which order, never how
 * long it took: on a machine that is slow, or busy with others, both fail by chance.
 *
 * Where a pause is what a test is about, a comment beside or above it says so: `// pause: the pace of the load`.
 */
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('.', import.meta.url))

/** Programs that put load on a deployment for a time, and support for tests, which looks again and again. */
const paced = /^(drive|faults\/engine|regression|support)\//

const faults: readonly { readonly what: string; readonly pattern: RegExp }[] = [
  {
    what: 'waits for time to pass: wait for a condition, with until() of test/support',
    pattern: /\bawait (delay|sleep|setTimeout)\(|setTimeout\(\s*(resolve|done)\b/,
  },
  {
    what: 'asserts how long something took: assert what happened, and in which order',
    pattern:
      /\bt\.(ok|notOk)\((Math\.abs\()?[^,'`]*(\b(performance|Date)\.now\(\)( - |\b.* - )|\b\w*([eE]lapsed|took)\w*( - \w+)?)[^,'`]* <=? |\bt\.(ok|notOk)\(.*\btook (less|no longer) than\b/,
  },
  {
    what: 'gives a condition a short time: until() has a limit that is for what never comes',
    pattern: /\buntil\((.*,)? (\d{1,4}|[1-9]_\d{3}|[1-5]\d_000)(\)|,? \))/,
  },
]

/**
 * The line at this index; of a call that is spread over several lines also the last two: its last argument, when that
 * stands alone, and its end, which is indented as its beginning is.
 */
function lineAt(lines: readonly string[], index: number): string {
  const line = lines[index] as string
  if (!/\buntil\((.*([({]|=>))?$/.test(line)) return line
  const indent = line.slice(0, line.search(/\S/))
  const end = lines.findIndex(
    (other, at) => at > index && other.startsWith(indent) && /^[)}]/.test(other.slice(indent.length)),
  )
  if (end === -1) return line
  const last = (lines[end - 1] as string).trim()
  return [line, ...(/^\w+,?$/.test(last) ? [last] : []), (lines[end] as string).trim()].join(' ')
}

/** What is wrong with a line of a test, if anything is. */
const faultOf = (line: string, above = ''): string | undefined =>
  `${above}${line}`.includes('// pause: ') ? undefined : faults.find(({ pattern }) => pattern.test(line))?.what

t.test('no test waits for luck', async t => {
  const files = (await readdir(root, { recursive: true })).filter(
    file => /\.(test|long)\.ts$|^contracts\/.*\.ts$/.test(file) && !paced.test(file),
  )
  t.ok(files.length > 50, `${files.length} files`)
  for (const file of files.filter(name => name !== 'waiting.test.ts')) {
    const lines = (await readFile(root + file, 'utf8')).split('\n')
    for (const index of lines.keys()) {
      const line = lineAt(lines, index)
      const fault = faultOf(line, lines[index - 1])
      if (fault !== undefined) t.fail(`test/${file}:${index + 1} ${fault}\n${line.trim()}`)
    }
  }
})

t.test('and what does is seen', async t => {
  for (const line of [
    '  await delay(300)',
    'await new Promise(resolve => setTimeout(resolve, 3500))',
    "t.ok(performance.now() - began < 30_000, 'in time')",
    't.ok(Date.now() - startedMs < 5000)',
    "t.ok(tookMs < 100, 'ended')",
    't.ok(at(0.99) < 50, `99 % of the ticks took less than 50 ms`)',
    "await until(() => said.includes('ended'), 10_000)",
    "  await until(\n    async () => (await call('/ended')).status === 200,\n    30_000,\n  )",
    'await until(async () => {\n  last = await call()\n  return last.hasEnded\n}, 5000)',
  ])
    t.ok(faultOf(lineAt(line.split('\n'), 0)), line)
  for (const line of [
    '  await delay(50) // pause: the pace of the load',
    "t.ok(performance.now() - began >= 300, 'it did wait')",
    't.ok(instance.launchedAt <= Date.now() + 1)',
    "await until(() => said.includes('ended'))",
    't.ok(waits <= 1)',
    "  await until(\n    async () => (await call('/ended', 5000)).status === 200,\n  )",
    'await until(async () => {\n  last = await call(1, 100)\n  return last.hasEnded\n})',
  ])
    t.notOk(faultOf(lineAt(line.split('\n'), 0)), line)
})
