/** A whole node as a user starts it: `dist/cli.js node` in a process of its own, with its Redis and its local workers. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { freePort } from './free-port.ts'
import { until } from './until.ts'

export const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

export interface NodeProcess {
  readonly url: string
  readonly dataDir: string
  readonly pid: number
  /** All that it wrote so far. */
  output(): string
  /** Of that, what it wrote to standard output. */
  stdout(): string
  /** Starts it again in the same place. */
  restart(): Promise<void>
  kill(signal: NodeJS.Signals): void
  /** Waits for its end. @returns exit code or signal */
  ended(): Promise<number | string>
  redisPid(): Promise<number>
}

export async function startNodeProcess(
  t: Test,
  environment: Record<string, string> = {},
  args: string[] = [],
  program: string = process.execPath,
  entry: string = cli,
): Promise<NodeProcess> {
  if (!existsSync(entry)) throw new Error('dist/ is missing: run "npm run build"')
  const dataDir = await mkdtemp(join(tmpdir(), 'muster-e2e-'))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  let child: ChildProcess
  let output = ''
  let stdout = ''
  let end: Promise<number | string>

  const launch = async (): Promise<void> => {
    const env = {
      ...Object.fromEntries(
        Object.entries(process.env).filter(([name]) => !name.startsWith('MUSTER_') && name !== 'NODE_OPTIONS'),
      ),
      // Inherited by all that the node starts, and by what those start: so they are found.
      MARK_OF_TEST: dataDir,
      MUSTER_PASS_ENV: 'MARK_OF_TEST',
      MUSTER_PORT: String(port),
      MUSTER_DATA_DIR: dataDir,
      MUSTER_CONFIG_FILE: '/nonexistent',
      ...environment,
    }
    child = spawn(program, [entry, 'node', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let ended = false
    end = once(child, 'exit').then(([code, signal]) => {
      ended = true
      return code ?? signal
    })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        said += chunk
        output += chunk
        if (stream === child.stdout) stdout += chunk
      })
    }
    await until(() => said.includes('Muster is ready') || ended)
    if (ended) throw new Error(`the node ended: ${said}`)
  }
  await launch()
  t.teardown(async () => {
    child.kill('SIGTERM')
    await end
    await rm(dataDir, { recursive: true, force: true })
  })
  return {
    url,
    dataDir,
    get pid() {
      return child.pid as number
    },
    output: () => output,
    stdout: () => stdout,
    restart: launch,
    kill: signal => void child.kill(signal),
    ended: () => end,
    redisPid: async () => await childOf(child.pid as number, 'redis-server'),
  }
}

/** What a node with this data directory started, and what that started: found by the mark in their environment. */
export async function processesOf(dataDir: string): Promise<{ pid: number; command: string }[]> {
  const found: { pid: number; command: string }[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue
    const read = async (file: string): Promise<string> =>
      await readFile(`/proc/${entry}/${file}`, 'utf8').catch(() => '')
    const command = (await read('cmdline')).replaceAll('\0', ' ')
    if (command !== '' && (await read('environ')).includes(`MARK_OF_TEST=${dataDir}`))
      found.push({ pid: Number(entry), command })
  }
  return found
}

async function childOf(parent: number, name: string): Promise<number> {
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const stat = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '')
    const [, comm, ppid] = /^\d+ \((.*)\) \S (\d+)/.exec(stat) ?? []
    if (comm === name && Number(ppid) === parent) return Number(entry)
  }
  throw new Error(`no ${name} under ${parent}`)
}
