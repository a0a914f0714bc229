/** A worker that has nothing but what a node gave it: /workers/bundle.tgz in an empty folder. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import t from 'tap'
import { extract } from 'tar'
import { startNodeProcess } from '../support/node-process.ts'

t.test('a worker runs jobs from the bundle alone, in an empty folder', async t => {
  const node = await startNodeProcess(t, { MUSTER_FLEET: 'none' })
  const folder = await mkdtemp(join(tmpdir(), 'muster-bundle-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const reply = await fetch(`${node.url}/workers/bundle.tgz`)
  const bytes = Buffer.from(await reply.arrayBuffer())
  const digest = createHash('sha256').update(bytes).digest('base64')
  t.equal(reply.headers.get('repr-digest'), `sha-256=:${digest}:`)
  t.ok(bytes.length < 1_000_000, `${bytes.length} bytes`)
  await pipeline(Readable.from([bytes]), extract({ cwd: folder }))
  t.same((await readdir(folder)).sort(), ['dist', 'package.json'])

  const env = { PATH: process.env.PATH, MUSTER_NODE_URLS: node.url, MUSTER_WORKER_SLOTS: '1' }
  const worker = spawn(process.execPath, ['dist/cli.js', 'worker'], { cwd: folder, env })
  let said = ''
  for (const stream of [worker.stdout, worker.stderr]) stream.on('data', chunk => (said += chunk))
  t.teardown(() => worker.kill('SIGKILL'))

  const put = await fetch(`${node.url}/enqueue?iterations=1`, {
    method: 'PUT',
    body: 'hello',
    headers: { 'content-type': 'application/octet-stream' },
  })
  const { 'Work ID': workId } = (await put.json()) as { 'Work ID': string }
  let results: { 'Work ID': string; Value: string }[] = []
  while (results.length === 0 && worker.exitCode === null) {
    results = (await (await fetch(`${node.url}/pullCompleted?top=1&waitMs=5000`, { method: 'POST' })).json()) as never
  }
  const value = createHash('sha512').update('hello').digest('hex')
  t.same(results, [{ 'Work ID': workId, Value: value }], said)
  worker.kill('SIGTERM')
  t.same(await once(worker, 'exit'), [0, null], said)

  const other = spawn(process.execPath, ['dist/cli.js', 'node'], { cwd: folder, env })
  let words = ''
  other.stderr.on('data', chunk => (words += chunk))
  await once(other, 'close')
  t.match(words, /holds only "muster worker"/)
})
