/** What a worker says at once stays below what a node takes at once: 4 MiB of JSON. */
import t from 'tap'
import { startWorker } from '../support/agent.ts'

t.test('the largest outcome that is not uploaded, with the longest log', async t => {
  const { node } = await startWorker(t, { MUSTER_INLINE_BYTES: '1048576' })
  const [id] = node.add({ type: 'loud', payload: { json: 1_048_576 } }) as [string]
  const { value, error } = await node.result(id)
  t.equal(error, undefined)
  t.equal((value as { base64: string }).base64.length, 1_398_104)
  t.equal(node.uploads.size, 0)
  const logs = [...(node.logs.get(id) ?? []), ...(node.completions.find(({ workId }) => workId === id)?.logs ?? [])]
  t.ok(logs.length >= 1000, `${logs.length} lines`)
})

t.test('many values of characters that take three bytes each', async t => {
  const { node } = await startWorker(t)
  const text = '€'.repeat(5000)
  const ids = node.add(...Array.from({ length: 300 }, () => ({ type: 'echo', payload: { json: text } })))
  const results = await Promise.all(ids.map(id => node.result(id)))
  t.ok(results.every(({ value }) => (value as { json: string } | undefined)?.json === text))
  t.equal(node.uploads.size, 0)
})
