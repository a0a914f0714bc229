/** The drive in its short form, as it is built and called. Its plans stay the same; those by chance are in drive.long.ts. */
import t from 'tap'
import { buildDrive, runDrive } from './run-built.ts'

t.setTimeout(1_800_000)
t.before(buildDrive)

t.test('what it can do is said', async t => {
  const { code, output } = await runDrive(['--help'])
  t.equal(code, 0)
  t.match(output, /--seed(.|\n)*kill the node \(kills\)/)
  t.match(await runDrive(['--minutes', 'many']), { code: 2, output: /--minutes must be a number/ })
})

for (const seed of ['steady', 'second'])
  t.test(`seed ${seed}: nothing is wrong`, { timeout: 900_000 }, async t => {
    const { code, output } = await runDrive(['--seed', seed, '--minutes', '0.4'])
    t.comment(output.split('\n').slice(-4).join('\n'))
    t.equal(code, 0, output.slice(-20_000))
  })
