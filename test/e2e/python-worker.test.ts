/** examples/worker.py with values that are large, refused or none at all: it is what people start from. */
import { spawn } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

const python = fileURLToPath(new URL('../../examples/worker.py', import.meta.url))

t.test('the worker in Python outlives its jobs', async t => {
  const node = await startNodeProcess(t, { MUSTER_FLEET: 'none', MUSTER_SHUTDOWN_GRACE_MS: '0' })
  // biome-ignore lint/suspicious/noExplicitAny: whatever the API answers
  const get = async (path: string): Promise<any> => await (await fetch(node.url + path)).json()
  const put = async (body: string): Promise<string> => {
    const headers = { 'content-type': 'application/octet-stream' }
    const reply = await fetch(`${node.url}/enqueue?type=wordCount&attempts=1`, { method: 'PUT', headers, body })
    return ((await reply.json()) as { 'Work ID': string })['Work ID']
  }
  // Its handler, in place of which people write their own.
  const handler = 'collections.Counter(text.split())'
  const text = await readFile(python, 'utf8')
  t.equal(text.split(handler).length, 2)
  const own = `{"nan": lambda: float("nan"), "exit": lambda: exit(3), "set": lambda: {1}}.get(text, lambda: ${handler})()`
  const file = join(t.testdir(), 'worker.py')
  await writeFile(file, text.replace(handler, own))
  const child = spawn('python3', [file], { env: { ...process.env, MUSTER_NODE_URLS: node.url } })
  let said = ''
  child.stderr.on('data', chunk => {
    said += chunk
  })
  t.teardown(() => child.kill('SIGKILL'))
  const ended = new Promise<number | null>(resolve => child.once('exit', resolve))
  await until(async () => (await get('/status')).Workers === 1)

  const words = Array.from({ length: 400_000 }, (_, index) => `word${String(index).padStart(7, '0')}`)
  const cases: [payload: string, expected: object][] = [
    ['nan', { state: 'dead', error: { code: 'handler_error', message: /not JSON compliant/ } }],
    ['exit', { state: 'dead', error: { code: 'handler_error', message: '3' } }],
    ['set', { state: 'dead', error: { code: 'handler_error', message: /not JSON serializable/ } }],
    [words.join(' '), { state: 'succeeded' }],
    ['a b a', { state: 'succeeded' }],
  ]
  const workIds = await Promise.all(cases.map(async ([payload]) => await put(payload)))
  for (const [index, [payload, expected]] of cases.entries()) {
    const path = `/jobs/${workIds[index]}`
    await until(async () => ['succeeded', 'dead'].includes((await get(path)).state) || child.exitCode !== null)
    t.match(await get(path), { ...expected, lostLeases: 0, attemptsMade: 1 }, payload.slice(0, 10))
  }
  t.equal(Object.keys((await get(`/jobs/${workIds[3]}/result`)).value).length, words.length)
  t.same((await get(`/jobs/${workIds[4]}/result`)).value, { a: 2, b: 1 })
  child.kill('SIGINT')
  t.equal(await ended, 0, said)
})
