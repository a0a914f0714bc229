/** The drive for half an hour, by chance: one machine, then two nodes on three replicas. */
import t from 'tap'
import { buildDrive, runDrive } from './run-built.ts'

const minutes = 15

t.setTimeout(8 * minutes * 60_000)
t.before(buildDrive)

for (const mode of [[], ['--two-nodes']])
  t.test(`nothing is wrong ${mode.join(' ')}`, { timeout: 4 * minutes * 60_000 }, async t => {
    const { code, output } = await runDrive(['--minutes', String(minutes), ...mode])
    t.comment(output.split('\n').slice(-4).join('\n'))
    t.equal(code, 0, output.slice(-20_000))
  })
