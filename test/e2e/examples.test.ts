/** The examples of handlers, run as the README says: a node bundles them, its workers fetch them. */
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { type NodeProcess, startNodeProcess } from '../support/node-process.ts'

const example = (name: string): string => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url))

async function runJob(node: NodeProcess, type: string, contentType: string, body: string): Promise<unknown> {
  const headers = { 'content-type': contentType }
  const put = await fetch(`${node.url}/enqueue?type=${type}`, { method: 'PUT', headers, body })
  if (!put.ok) throw new Error(`${await put.text()}\n${node.output()}`)
  const { 'Work ID': workId } = (await put.json()) as { 'Work ID': string }
  for (;;) {
    const pull = await fetch(`${node.url}/pullCompleted?top=1&waitMs=10000&failed=include`, { method: 'POST' })
    const [result] = (await pull.json()) as { 'Work ID': string; Value: unknown }[]
    if (result?.['Work ID'] === workId) return result.Value
  }
}

t.test('examples/handlers.ts: TypeScript with an import of its own', async t => {
  const node = await startNodeProcess(t, { MUSTER_MAX_WORKERS: '1' }, ['--handlers', example('handlers.ts')])
  t.same(await runJob(node, 'wordCount', 'application/json', '{"payload":{"text":"one two Two"}}'), { one: 1, two: 2 })
  t.same(await runJob(node, 'byteSum', 'application/octet-stream', 'ab'), { sum: 195 })
  const refused = await fetch(`${node.url}/enqueue?type=wordCount`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: '{"payload":{"words":1}}',
  })
  t.equal(refused.status, 400)
})

t.test('examples/handlers.mjs: JavaScript', async t => {
  const node = await startNodeProcess(t, { MUSTER_MAX_WORKERS: '1' }, ['--handlers', example('handlers.mjs')])
  t.match(await runJob(node, 'fingerprint', 'application/octet-stream', 'a'), /^ca978112ca1bbdca/)
})
