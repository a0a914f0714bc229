/**
 * A real redis-server for one test file: on a unix socket in a folder of its own (and on a port when asked), gone at
 * teardown, and gone with the test process however that ends.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { freePort } from './free-port.ts'
import { patienceMs, until } from './until.ts'

export interface TestRedisOptions {
  /** Keep an append-only file, so that restart() finds what was written (default false: fast, empty after a restart). */
  readonly appendOnly?: boolean
  /** Also listen on a free port of 127.0.0.1; its address is then `url`. */
  readonly tcp?: boolean
  /** More redis.conf directives, `{ 'maxmemory-policy': 'allkeys-lru' }`; a list for one with several arguments. */
  readonly config?: Readonly<Record<string, string | readonly string[]>>
}

export interface TestRedis {
  readonly socketPath: string
  /** `redis://127.0.0.1:port`, only with `tcp`. */
  readonly url: string | undefined
  readonly pid: number
  /** A plain client that is ready; it is closed at teardown. */
  client(): Promise<Redis>
  /** SIGKILL, and waits until it is gone. */
  kill(): Promise<void>
  /** Starts it again in the same place (stops it first when it still runs); returns when it answers. */
  restart(): Promise<void>
  /** Stops it in good order. */
  stop(): Promise<void>
}

const hasSetpriv = process.platform === 'linux' && spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true']).status === 0

/** Starts a Redis and returns when it answers. */
export async function startTestRedis(t: Pick<Test, 'teardown'>, options: TestRedisOptions = {}): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-redis-'))
  const socketPath = join(folder, 's')
  const port = options.tcp ? await freePort() : 0
  const clients: Redis[] = []
  let child = await launch(folder, socketPath, port, options).catch(async (error: unknown) => {
    await rm(folder, { recursive: true, force: true })
    throw error
  })

  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill(signal)
    const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs)
    await gone
    clearTimeout(timer)
  }

  t.teardown(async () => {
    for (const client of clients) client.disconnect()
    await end('SIGKILL')
    await rm(folder, { recursive: true, force: true })
  })

  return {
    socketPath,
    url: port === 0 ? undefined : `redis://127.0.0.1:${port}`,
    get pid() {
      return child.pid ?? -1
    },
    async client() {
      const client = new Redis({ path: socketPath, lazyConnect: true, maxLoadingRetryTime: 50 })
      client.on('error', () => undefined) // a test that kills Redis expects them
      clients.push(client)
      await client.connect()
      return client
    },
    kill: () => end('SIGKILL'),
    stop: () => end('SIGTERM'),
    async restart() {
      await end('SIGTERM')
      child = await launch(folder, socketPath, port, options)
    },
  }
}

/** Runs redis-server, which is gone with the test process; `output` is the end of what it said. */
export function spawnRedis(args: readonly string[]): { child: ChildProcess; output: () => string } {
  const command = ['redis-server', ...args]
  const [program = '', ...rest] = hasSetpriv ? ['setpriv', '--pdeathsig', 'KILL', ...command] : command
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  const keep = (chunk: unknown): void => {
    output = (output + chunk).slice(-4000)
  }
  child.stdout.on('data', keep)
  child.stderr.on('data', keep)
  child.on('error', error => keep(error.message))
  return { child, output: () => output }
}

/** Signals a process and waits until it is gone. */
export async function endProcess(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill(signal)
  await gone
}

async function launch(
  folder: string,
  socketPath: string,
  port: number,
  options: TestRedisOptions,
): Promise<ChildProcess> {
  const directives: Record<string, string | readonly string[]> = {
    dir: folder,
    port: String(port),
    bind: '127.0.0.1',
    unixsocket: socketPath,
    save: '',
    appendonly: options.appendOnly ? 'yes' : 'no',
    appendfsync: 'always',
    'maxmemory-policy': 'noeviction',
    ...options.config,
  }
  const flags = Object.entries(directives).flatMap(([name, value]) => [`--${name}`, value].flat())
  const { child, output } = spawnRedis(flags)
  const hasEnded = (): boolean => child.pid === undefined || child.exitCode !== null || child.signalCode !== null
  let isUp = false
  await until(async () => {
    isUp = await answers(socketPath)
    return isUp || hasEnded()
  }).catch(() => undefined)
  if (!isUp) {
    child.kill('SIGKILL')
    throw new Error(`redis-server did not start:\n${output()}`)
  }
  return child
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = createConnection(socketPath)
    const settle = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(5000, () => settle(false))
    socket.on('error', () => settle(false))
    socket.on('connect', () => socket.write('PING\r\n'))
    socket.on('data', data => settle(!data.toString().startsWith('-LOADING')))
    socket.on('close', () => settle(false))
  })
}
