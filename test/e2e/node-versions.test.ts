/**
 * Other versions of Node.js than the one that runs the tests: a node with its own Redis, local workers, handlers of a user,
 * a worker beside it. Their programs come from the npm registry, once for each version.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { cli, startNodeProcess } from '../support/node-process.ts'

const versions = [22, 24].filter(version => !process.version.startsWith(`v${version}.`))
const installWithinMs = 300_000

/** @returns the program; undefined where there is none, which is told */
async function fetchNode(t: Test, version: number): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), `muster-node-${version}-`))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const name = `node-${process.platform}-${process.arch}`
  const args = ['install', '--no-audit', '--no-fund', '--no-package-lock', '--prefix', folder, `${name}@${version}`]
  const { status, stderr } = spawnSync('npm', args, { encoding: 'utf8', timeout: installWithinMs, cwd: folder })
  const program = join(folder, 'node_modules', name, 'bin', 'node')
  if (status === 0 && existsSync(program)) return program
  const message = `Node.js ${version} cannot be had from the npm registry: npm ${args.join(' ')}\n${stderr.slice(-500)}`
  if ((process.env.CI ?? '') !== '') t.fail(message)
  else t.comment(`NOT CHECKED: ${message}`)
  return undefined
}

const handlers = `import { defineHandler } from 'muster'
export const shout = defineHandler({
  type: 'shout',
  payload: { type: 'object', required: ['text'], properties: { text: { type: 'string' } } },
  handle: ({ text }, context) => (context.log(process.version), text.toUpperCase()),
})
`

for (const version of versions) {
  t.test(`Node.js ${version}`, async t => {
    const program = await fetchNode(t, version)
    if (program === undefined) return
    const said = spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout
    t.match(said, new RegExp(`^v${version}\\.`))
    const folder = await mkdtemp(join(tmpdir(), 'muster-handlers-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const file = join(folder, 'handlers.mjs')
    await writeFile(file, handlers)
    const node = await startNodeProcess(t, { MUSTER_MAX_WORKERS: '1' }, ['--handlers', file], program)
    const put = async (query: string, headers: Record<string, string>, body: string): Promise<string> => {
      const reply = await fetch(`${node.url}/enqueue?${query}`, { method: 'PUT', headers, body })
      return ((await reply.json()) as { 'Work ID': string })['Work ID']
    }
    const pull = async (): Promise<unknown> =>
      await (await fetch(`${node.url}/pullCompleted?top=1&waitMs=60000`, { method: 'POST' })).json()

    const hashed = await put('iterations=1', { 'content-type': 'application/octet-stream' }, 'hello')
    const digest = createHash('sha512').update('hello').digest('hex')
    t.strictSame(await pull(), [{ 'Work ID': hashed, Value: digest }])
    const json = { 'content-type': 'application/json' }
    const shouted = await put('type=shout', json, '{"payload":{"text":"aloud"}}')
    t.strictSame(await pull(), [{ 'Work ID': shouted, Value: 'ALOUD' }])
    const { lines } = (await (await fetch(`${node.url}/jobs/${shouted}/logs`)).json()) as { lines: string[] }
    t.strictSame(lines, [said.trim()], 'it ran on that version')
    const refused = await fetch(`${node.url}/enqueue?type=shout`, {
      method: 'PUT',
      headers: json,
      body: '{"payload":{}}',
    })
    t.equal(refused.status, 400, 'payloads are checked')

    const env = {
      ...process.env,
      MUSTER_NODE_URLS: node.url,
      MUSTER_CONFIG_FILE: '/nonexistent',
      MUSTER_HANDLERS: file,
    }
    const worker = spawn(program, [cli, 'worker'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    const gone = once(worker, 'exit')
    let log = ''
    for await (const chunk of worker.stdout) {
      log += chunk
      if (log.includes('worker started')) break
    }
    worker.kill('SIGTERM')
    t.strictSame(await gone, [0, null], 'a worker starts and drains')
    node.kill('SIGTERM')
    t.equal(await node.ended(), 0)
    t.notMatch(node.output(), /DeprecationWarning/)
  })
}
