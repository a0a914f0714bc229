/** The second signal ends a node at once, with its workers and the jobs that they run. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { processesOf, startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  t.test(`${signal} twice`, async t => {
    const node = await startNodeProcess(t)
    const reply = await fetch(`${node.url}/enqueue?type=sleep`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ payload: { ms: 600_000 } }),
    })
    const { 'Work ID': workId } = (await reply.json()) as { 'Work ID': string }
    t.equal(reply.status, 200, workId)
    const state = async (): Promise<unknown> =>
      ((await (await fetch(`${node.url}/jobs/${workId}`)).json()) as { state?: unknown }).state
    await until(async () => (await state()) === 'running')
    t.ok((await processesOf(node.dataDir)).length >= 3, 'Redis, a worker and its slot')
    node.kill(signal)
    await until(async () => (await fetch(`${node.url}/health/ready`).catch(() => undefined))?.status !== 200)
    node.kill(signal)
    t.equal(await node.ended(), 130)
    await until(async () => (await processesOf(node.dataDir)).length === 0)
    t.same(await processesOf(node.dataDir), [], 'nothing runs on')
  })
}

t.test('a slot that was stopped ends, too, with what it started in sessions of their own', async t => {
  const folder = t.testdir({
    'handlers.mjs': `import { defineHandler } from 'muster'
import { spawn } from 'node:child_process'
export const stop = defineHandler({ type: 'stop', handle: () => {
  for (let n = 0; n < 5; n++) spawn('sleep', ['4321'], { detached: true, stdio: 'ignore' }).unref()
  process.kill(process.pid, 'SIGSTOP')
} })
export const stay = defineHandler({ type: 'stay', handle: () => {
  for (let n = 0; n < 5; n++) spawn('sleep', ['1234'], { detached: true, stdio: 'ignore' }).unref()
  return new Promise(() => undefined)
} })`,
  })
  // Short: a socket of Redis lies there, too.
  const temporary = mkdtempSync(join(tmpdir(), 'muster-second-'))
  t.teardown(() => rmSync(temporary, { recursive: true, force: true }))
  const settings = { MUSTER_WORKER_SLOTS: '2', TMPDIR: temporary }
  const node = await startNodeProcess(t, settings, ['--handlers', join(folder, 'handlers.mjs')])
  for (const type of ['stop', 'stay']) await fetch(`${node.url}/enqueue?type=${type}`, { method: 'PUT' })
  const sleeping = async (): Promise<number> =>
    (await processesOf(node.dataDir)).filter(({ command }) => command.startsWith('sleep ')).length
  await until(async () => (await sleeping()) === 10)
  const handlersLeft = (): string[] => readdirSync(temporary).filter(name => name.startsWith('muster-handlers-'))
  t.ok(handlersLeft().length > 0)
  node.kill('SIGTERM')
  await until(async () => (await fetch(`${node.url}/health/ready`).catch(() => undefined))?.status !== 200)
  node.kill('SIGTERM')
  t.equal(await node.ended(), 130)
  await until(async () => (await processesOf(node.dataDir)).length === 0)
  t.same(handlersLeft(), [])
  t.same(await processesOf(node.dataDir), [], 'nothing runs on')
})
