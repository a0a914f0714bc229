/**
 * The package as npm gives it to a user: packed, installed into an empty folder, a node with handlers of the user beside it, and
 * a worker from the code that this node serves.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { extract } from 'tar'
import { packageName } from '../../src/version.ts'
import { startNodeProcess } from '../support/node-process.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const withinMs = 300_000

/** @returns the folder of the package that was installed; undefined where its dependencies cannot be had, which is told */
async function install(t: Test, folder: string): Promise<string | undefined> {
  const npm = (cwd: string, ...args: string[]) =>
    spawnSync('npm', args, { cwd, encoding: 'utf8', timeout: withinMs, maxBuffer: 64 * 1024 * 1024 })
  const packed = npm(root, 'pack', '--ignore-scripts', '--json', '--pack-destination', folder)
  t.equal(packed.status, 0, packed.stderr)
  const [file = ''] = (await readdir(folder)).filter(name => name.endsWith('.tgz'))
  await writeFile(join(folder, 'package.json'), '{"private":true}')
  const args = ['install', '--no-audit', '--no-fund', '--prefer-offline', `./${file}`]
  const { status, stderr } = npm(folder, ...args)
  const installed = join(folder, 'node_modules', packageName)
  if (status === 0 && existsSync(installed)) return installed
  const message = `The package cannot be installed: npm ${args.join(' ')}\n${stderr.slice(-500)}`
  if ((process.env.CI ?? '') !== '') t.fail(message)
  else t.comment(`NOT CHECKED: ${message}`)
  return undefined
}

const emptyFolder = async (t: Test): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'muster-package-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

t.test('installed by npm, it runs handlers of the user, and serves workers', async t => {
  const folder = await emptyFolder(t)
  const installed = await install(t, folder)
  if (installed === undefined) return
  await mkdir(join(folder, 'lib'))
  await writeFile(join(folder, 'lib/shout.ts'), 'export const shout = (text: string): string => text.toUpperCase()\n')
  const handlers = join(folder, 'handlers.ts')
  await writeFile(
    handlers,
    `import { defineHandler } from '${packageName}'
import { shout } from './lib/shout.ts'
export const own = defineHandler({ type: 'shout', handle: async ({ text }: { text: string }) => shout(text) })
`,
  )
  const entry = join(installed, 'dist/cli.js')
  const node = await startNodeProcess(t, { MUSTER_FLEET: 'none' }, ['--handlers', handlers], process.execPath, entry)

  const bundle = await fetch(`${node.url}/workers/bundle.tgz`)
  const alone = await emptyFolder(t)
  await pipeline(Readable.from([Buffer.from(await bundle.arrayBuffer())]), extract({ cwd: alone }))
  const env = { PATH: process.env.PATH, MUSTER_NODE_URLS: node.url, MUSTER_WORKER_SLOTS: '1' }
  const worker = spawn(process.execPath, ['dist/cli.js', 'worker'], { cwd: alone, env })
  t.teardown(() => worker.kill('SIGKILL'))
  let said = ''
  for (const stream of [worker.stdout, worker.stderr]) stream.on('data', chunk => (said += chunk))

  const put = await fetch(`${node.url}/enqueue?type=shout`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: '{"payload":{"text":"aloud"}}',
  })
  const { 'Work ID': workId } = (await put.json()) as { 'Work ID': string }
  let results: unknown[] = []
  while (results.length === 0 && worker.exitCode === null)
    results = (await (
      await fetch(`${node.url}/pullCompleted?top=1&waitMs=5000`, { method: 'POST' })
    ).json()) as unknown[]
  t.same(results, [{ 'Work ID': workId, Value: 'ALOUD' }], said)
  worker.kill('SIGTERM')
  t.same(await once(worker, 'exit'), [0, null], said)
})
