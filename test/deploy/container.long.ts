/**
 * There is no container engine here: the Dockerfile is carried out in plain folders. What it copies (past .dockerignore)
 * is copied, the npm commands that it runs are run, and what comes out must start, answer its health check and stop.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { final, getsPastIgnore, listOf, readCopy, type Stage, stages } from '../support/dockerfile.ts'
import { freePort } from '../support/free-port.ts'
import { until } from '../support/until.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))

t.test('what it copies and runs makes a node that starts', async t => {
  const work = await mkdtemp(join(tmpdir(), 'muster-image-'))
  t.teardown(() => rm(work, { recursive: true, force: true }))
  for (const stage of stages) {
    const folder = join(work, stage.name)
    await mkdir(folder)
    for (const { instruction, text } of stage.steps) {
      if (instruction === 'COPY') await copy(stage, text, folder)
      if (instruction === 'RUN' && text.startsWith('npm ')) await npm(text, folder)
    }
  }

  async function copy(stage: Stage, text: string, folder: string): Promise<void> {
    const { from, paths, target } = readCopy(text)
    for (const path of paths) {
      if (from === undefined) t.ok(getsPastIgnore(path), `${stage.name}: ${path} gets past .dockerignore`)
      const source = from === undefined ? join(root, path) : join(work, from, path.replace('/app/', ''))
      const isInto = target.endsWith('/') || paths.length > 1
      await cp(source, isInto ? join(folder, target, basename(path)) : join(folder, target), { recursive: true })
    }
  }

  async function npm(text: string, folder: string): Promise<void> {
    const args = text.split(' ')
    // The same packages, from the cache where they are there; without what tap adds to every Node.
    const command = ['-u', 'NODE_OPTIONS', ...args, ...(args[1] === 'ci' ? ['--prefer-offline'] : [])]
    await run('env', command, { cwd: folder, maxBuffer: 1e8 })
  }

  const app = join(work, 'final')
  t.ok((await stat(join(app, 'dist/cli.js'))).isFile())
  t.notOk(await stat(join(app, 'node_modules/typescript')).catch(() => false), 'nothing to build with is in it')

  const port = await freePort()
  const [, ...entry] = listOf(final, 'ENTRYPOINT')
  const env = { PATH: process.env.PATH, HOME: work, MUSTER_PORT: String(port), MUSTER_DATA_DIR: join(work, 'data') }
  const start = (more: Record<string, string>) =>
    spawn(process.execPath, [...entry, ...listOf(final, 'CMD')], { cwd: app, env: { ...env, ...more } })

  const closed = start({ MUSTER_HOST: '0.0.0.0' })
  let said = ''
  for (const stream of [closed.stdout, closed.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk))
  const [code] = await once(closed, 'exit')
  t.equal(code, 1, 'as it comes it does not open itself to the network')
  t.match(said, /keys create|MUSTER_OPERATOR_KEY/, 'and says how to make a key')

  const node = start({ MUSTER_HOST: '127.0.0.1' })
  const gone = once(node, 'exit')
  t.teardown(() => node.kill('SIGKILL'))
  const health = async (): Promise<boolean> => {
    const checked = spawn(process.execPath, listOf(final, 'HEALTHCHECK').slice(1), { cwd: app, env })
    return (await once(checked, 'exit'))[0] === 0
  }
  t.notOk(await health(), 'not well before it listens')
  await until(async () => await health())
  t.pass('well once it listens')
  node.kill('SIGTERM')
  t.same(await gone, [0, null])
})
