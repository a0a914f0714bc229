/** Whatever a handler throws or returns: its attempt fails with words, and nobody else notices. */
import t from 'tap'
import { startWorker } from '../support/agent.ts'

const oddErrorsFile = new URL('../support/odd-errors.mjs', import.meta.url).href
const { oddErrors } = (await import(oddErrorsFile)) as { oddErrors: Record<string, unknown> }

t.test('thrown things that are no proper errors', async t => {
  const { node, worker } = await startWorker(t)
  const pids = worker.slotPids
  const throwOdd = (how: string, mode: string): string =>
    node.add({ type: 'throwOdd', payload: { json: { how, async: mode } } })[0] as string

  await t.test('thrown or rejected: the attempt fails, the slot stays', async t => {
    for (const how of Object.keys(oddErrors)) {
      for (const mode of ['thrown', 'rejected']) {
        const { error } = await node.result(throwOdd(how, mode))
        t.match(error, { code: 'handler_error', message: String }, `${how}, ${mode}`)
        t.ok((error?.message.length ?? 0) <= 16_384 && (error?.stack?.length ?? 0) <= 16_384)
      }
    }
    t.same(worker.slotPids, pids, 'no slot ended')
  })

  await t.test('left as an unhandled rejection: the slot ends, with the words', async t => {
    for (const how of ['message object', 'stack array', 'name getter', 'silent', 'proxy', 'nothing']) {
      const [beside] = node.add({ type: 'noop' }) as [string]
      const { error } = await node.result(throwOdd(how, 'unhandled'))
      t.match(error, { code: 'handler_error', message: /unhandled rejection/ }, how)
      t.equal((await node.result(beside)).error, undefined)
    }
  })
  t.equal(node.stale.length, 0)
})

t.test('an error is told with its class, its cause and the frames of its own code', async t => {
  const { node } = await startWorker(t)
  const [id] = node.add({ type: 'caused' }) as [string]
  const { error } = await node.result(id)
  t.match(error, { name: 'TypeError', message: 'outer', cause: 'Inner: inner ← Error: innermost' })
  const frames = error?.stack?.split('\n').filter(line => line.includes(' at ')) ?? []
  t.ok(frames.length > 0)
  t.ok(
    frames.every(line => line.includes('worker-handlers')),
    frames.join('\n'),
  )
})

t.test('values that JSON would drop or change are refused with the reason', async t => {
  const { node } = await startWorker(t)
  for (const what of [
    'Map',
    'Set',
    'WeakMap',
    'ArrayBuffer',
    'view',
    'NaN',
    'Infinity',
    'toJSON',
    'Promise',
    'Error',
    'RegExp',
    'Number',
    'Date',
    'generator',
    'function',
  ]) {
    for (const nested of [false, true]) {
      if (what === 'Promise' && !nested) continue
      const [id] = node.add({ type: 'lossy', payload: { json: { what, nested } } }) as [string]
      const { error } = await node.result(id)
      const reason = { view: 'typed array', toJSON: 'thrown: undefined' }[what] ?? what
      t.match(error, { code: 'handler_error', message: /cannot be written as JSON/ }, `${what}, nested: ${nested}`)
      t.ok(error?.message.includes(reason), `${what}: ${error?.message}`)
    }
  }
})
