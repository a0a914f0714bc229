/** The drive in its short form, as it is built and called. Its plans stay the same; those by chance are in drive.long.ts. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startNodeProcess } from '../support/node-process.ts'
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
  t.test(`seed ${seed}: nothing is wrong`, async t => {
    const { code, output } = await runDrive(['--seed', seed, '--minutes', '0.4'])
    t.comment(output.split('\n').slice(-4).join('\n'))
    t.equal(code, 0, output.slice(-20_000))
  })

t.test('a node that runs already is driven, beside what was there before', async t => {
  const folder = await mkdtemp(join(tmpdir(), 'muster-driven-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const config = join(folder, 'muster.yaml')
  await writeFile(config, 'queues:\n  second: { maxWorkers: 1 }\n  foreign: { maxWorkers: 0 }\n')
  const node = await startNodeProcess(t, {
    MUSTER_CONFIG_FILE: config,
    MUSTER_HANDLERS: fileURLToPath(new URL('handlers.mjs', import.meta.url)),
    MUSTER_BACKOFF_MS: '50',
  })
  t.match(await fetch(`${node.url}/enqueue?type=noop&delayMs=3600000`, { method: 'PUT' }), { status: 200 })
  const args = ['--url', node.url, '--minutes', '0.1', '--seed', 'there', '--without', 'foreign,mean']
  const { code, output } = await runDrive(args)
  t.equal(code, 0, output.slice(-20_000))
  t.match(output, /ended by its time, 0\.1 minutes\nnothing was wrong/)
  t.match(await fetch(`${node.url}/keys`).then(reply => reply.json()), { keys: [] }, 'it stays open')
})
