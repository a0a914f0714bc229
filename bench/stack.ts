/** What is measured: a real node with its embedded Redis in a folder of its own on a free port, and a real worker. */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import { embeddedFiles } from '../src/redis-server/embedded-config.ts'
import { endProcess, type Processes } from './processes.ts'

export interface Stack {
  readonly url: string
  /** Of the node's Redis. */
  readonly socketPath: string
  readonly redis: Redis
  /** Starts a worker with a slot for each CPU. @returns when the node has heard of it, what stops it */
  startWorker(): Promise<() => Promise<void>>
}

const readyWithinMs = 30_000
const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

/**
 * @param dataDir of the node; must exist and be empty
 * @param profile folder for CPU profiles, if any
 * @throws Error when the node does not start
 */
export async function startStack(processes: Processes, dataDir: string, profile: string | undefined): Promise<Stack> {
  const command = (...args: string[]): [string, ...string[]] => [
    process.execPath,
    ...(profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`]),
    cli,
    ...args,
  ]
  // As scripts/start.sh starts it.
  const [node, ...rest] = command('node')
  const url = await startNode(processes, [node, '--max-semi-space-size=32', ...rest], environmentFor(dataDir))
  const { socket } = embeddedFiles(dataDir, tmpdir())
  const redis = new Redis({ path: socket, retryStrategy: () => null })
  // It ends before its client does; what is asked of it then fails by itself.
  redis.on('error', () => undefined)
  return {
    url,
    socketPath: socket,
    redis,
    async startWorker() {
      const env = { ...environmentFor(dataDir), MUSTER_NODE_URLS: url }
      const worker = processes.spawn(command('worker'), { env, stdio: ['ignore', 'ignore', 'inherit'] })
      await untilWorkers(url)
      return async () => await endProcess(worker)
    },
  }
}

/** Nobody's own settings: the figures are those of the defaults. */
function environmentFor(dataDir: string): NodeJS.ProcessEnv {
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith('MUSTER_') && name !== 'PORT')
  return {
    ...Object.fromEntries(others),
    MUSTER_DATA_DIR: dataDir,
    MUSTER_CONFIG_FILE: join(dataDir, 'none.yaml'),
    MUSTER_PORT: '0',
    MUSTER_FLEET: 'none',
    MUSTER_LOG_LEVEL: 'error',
  }
}

async function startNode(
  processes: Processes,
  command: [string, ...string[]],
  env: NodeJS.ProcessEnv,
): Promise<string> {
  // A pipe and no terminal: then a node tells on standard error where it is, whatever ours is.
  const child = processes.spawn(command, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout?.pipe(process.stderr, { end: false })
  const lines = createInterface({ input: child.stderr as NodeJS.ReadableStream })
  let isReady = false
  return await new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`The node was not ready within ${readyWithinMs} ms`)),
      readyWithinMs,
    )
    lines.on('line', line => {
      const url = /ready at (http:\/\/\S+)/.exec(line)?.[1]
      // What it has to say after that is for somebody who wants to try it.
      if (url === undefined) return isReady ? undefined : void process.stderr.write(`${line}\n`)
      isReady = true
      clearTimeout(timer)
      resolve(url)
    })
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`The node ended with ${code} as soon as it was started`)))
  })
}

async function untilWorkers(url: string): Promise<void> {
  const deadlineMs = Date.now() + readyWithinMs
  for (;;) {
    const reply = await fetch(`${url}/status`, { signal: AbortSignal.timeout(5000) })
    if (((await reply.json()) as { Workers: number }).Workers > 0) return
    if (Date.now() > deadlineMs) throw new Error(`The worker did not appear within ${readyWithinMs} ms`)
    await delay(50)
  }
}
