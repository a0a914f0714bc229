/** The second signal ends a node at once, with its workers and the jobs that they run. */
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
