/**
 * Runs tap and prints what a person wants to see: one line a file, each failure with what it says, the coverage, and
 * last of all `N passed, N failed`. Exits with 0 only when tests passed, none failed and tap itself is content.
 * Arguments: test files; none for all but the long ones; --long for those. CHECKS_FAILED=1 says that the types or the style did not pass.
 */
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const tap = fileURLToPath(new URL('../node_modules/.bin/tap', import.meta.url))
const files = process.argv[2] === '--long' ? longFiles() : process.argv.slice(2)
const print = line => process.stdout.write(`${line}\n`)

const child = spawn(tap, ['run', '--reporter=tap', ...files], {
  cwd: root,
  stdio: ['ignore', 'pipe', 'inherit'],
})
const ended = new Promise(resolve => child.once('close', resolve).once('error', resolve))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))

/** The names of the tests that we are in, by depth. */
const within = []
/** Deeper lines than this belong to the failure that is being printed. */
let failureDepth
/** Of the last failure, to tell it from the failed tests around it. */
let printedDepth = 0
let inCoverage = false
let totals
/** Files: how many there are, and how many came to an end. */
let planned = 0
let finished = 0

for await (const line of createInterface({ input: child.stdout })) {
  const text = line.trimStart()
  const depth = line.length - text.length
  if (depth === 0 && /^# \{ .*total: /.test(line)) totals = readTotals(line)
  if (failureDepth !== undefined) {
    // A failure is followed by its details: an indented block between --- and ...
    print(line)
    if (text === '...' && depth === failureDepth + 2) failureDepth = undefined
    else if (depth <= failureDepth && !text.startsWith('---')) failureDepth = undefined
    if (failureDepth !== undefined) continue
  }
  if (text.startsWith('# Subtest: ')) {
    while (within.length > 0 && within.at(-1).depth >= depth) within.pop()
    within.push({ depth, name: text.slice('# Subtest: '.length) })
  } else if (depth === 0 && /^1\.\.\d+/.test(text)) {
    planned = Number(text.slice(3))
  } else if (depth === 0 && /^(not )?ok \d+ - /.test(text)) {
    finished++
    print(
      text
        .replace(/^not ok \d+ - /, 'FAILED ')
        .replace(/^ok \d+ - /, 'passed ')
        .replace(/ # time=([\d.]+)ms.*/, (_, ms) => ` (${Math.round(ms)} ms)`),
    )
  } else if (/^not ok /.test(text) && !/ # (TODO|SKIP)\b/i.test(text)) {
    // What failed inside of this one has been printed and says more.
    const isOutcome = depth < printedDepth && / # time=/.test(text)
    printedDepth = depth
    if (isOutcome) continue
    print(
      `\n${within
        .filter(test => test.depth < depth)
        .map(test => test.name)
        .join(' > ')}`,
    )
    print(line)
    failureDepth = depth
  } else if (/^-+\|-/.test(line)) {
    inCoverage = true
    print(line)
  } else if (inCoverage && depth <= 3 && line.includes('|')) {
    print(line)
  } else if (/^Bail out!/.test(text)) {
    print(line)
  }
}

/** Tests that take minutes each have a name of their own, so that tap does not find them by itself. */
function longFiles() {
  return readdirSync(join(root, 'test'), { recursive: true })
    .filter(file => file.endsWith('.long.ts'))
    .map(file => join(root, 'test', file))
}

/** `# { total: 10, pass: 9, skip: 1 }`; counts of zero are left out. */
function readTotals(line) {
  const count = name => Number(new RegExp(`\\b${name}: (\\d+)`).exec(line)?.[1] ?? 0)
  return { pass: count('pass'), fail: count('fail'), skip: count('skip') + count('todo') }
}

const code = await ended
const { pass, fail, skip } = totals ?? { pass: 0, fail: 0, skip: 0 }
const complaints = []
if (code !== 0 && fail === 0) complaints.push(`tap ended with ${code}`)
if (totals === undefined) complaints.push('tap did not say how many tests there were')
else if (pass + fail === 0) complaints.push('no test ran')
if (finished < planned) complaints.push(`${planned - finished} of ${planned} files were not run`)
if (process.env.CHECKS_FAILED === '1') complaints.push('types or style did not pass, see above')
if (complaints.length > 0) print(`\nTest run failed: ${complaints.join('; ')}.`)
// A run that fails says so in its counts too, even when what failed is no test.
const failed = complaints.length > 0 ? Math.max(fail, 1) : fail
print(`${pass} passed, ${failed} failed${skip > 0 ? `, ${skip} skipped` : ''}`)
process.exitCode = failed > 0 ? 1 : 0
