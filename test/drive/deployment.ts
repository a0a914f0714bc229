/**
 * A deployment of processes, as a user starts it: one node with its Redis and its local workers, or two nodes on three
 * replicas of Redis; and workers that it does not start itself.
 *
 *   started ──kill──▶ one process is gone ──▶ it is started again, here or by its supervisor ──▶ whole
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { type ProcessInfo, ProcessWatch } from './processes.ts'
import type { RedisPlace } from './redis-keys.ts'
import { SmallDisk } from './small-disk.ts'

const run = promisify(execFile)

export interface DeploymentOptions {
  /** The tree that is driven. */
  readonly root: string
  readonly twoNodes: boolean
  /** A data directory of the caller's, else one is made and removed. */
  readonly dataDir?: string
  readonly keep: boolean
  /** Local workers run as another user, where that can be. */
  readonly hasWorkerUser: boolean
  readonly say: (line: string) => void
  readonly onSurprise: (sentence: string) => void
}

/** As the nodes are told by MUSTER_DISK_RESERVE_MB. */
export const diskReserveMib = 64
export const limits = { leaseMs: 5000, maxBodyBytes: 3 * 1024 * 1024 + 4096 }
const startsWithinMs = 180_000
/** Gone with this process, however that ends. */
const ties =
  spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true']).status === 0 ? ['setpriv', '--pdeathsig', 'KILL'] : []

interface Member {
  readonly name: string
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  child: ChildProcess | undefined
  /** It is being ended on purpose. */
  isEnding: boolean
}

export class Deployment {
  readonly folder: string
  readonly urls: readonly string[]
  readonly isTwoNodes: boolean
  /** Under the data of the nodes; undefined where none can be mounted. */
  disk: SmallDisk | undefined
  /** The text of the handlers that the nodes were started with. */
  handlers = ''
  #version = 0
  readonly #options: DeploymentOptions
  readonly #members: Member[] = []
  readonly #watch = new ProcessWatch()
  #isOver = false
  /** Until all were ready once, a process that ends is no surprise but a deployment that cannot be made. */
  #isStarted = false
  #startFault: string | undefined

  private constructor(options: DeploymentOptions, folder: string, urls: readonly string[]) {
    this.#options = options
    this.folder = folder
    this.urls = urls
    this.isTwoNodes = options.twoNodes
  }

  static async start(options: DeploymentOptions): Promise<Deployment> {
    const folder = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'muster-drive-')))
    const ports = [await freePort(), ...(options.twoNodes ? [await freePort()] : [])]
    const deployment = new Deployment(
      options,
      folder,
      ports.map(port => `http://127.0.0.1:${port}`),
    )
    try {
      await deployment.#startAll(ports)
    } catch (error) {
      await deployment.stop().catch(() => undefined)
      throw error
    }
    return deployment
  }

  nextVersion(): number {
    this.#version += 1
    return this.#version
  }

  get nodes(): readonly string[] {
    return this.#nodes.map(({ name }) => name)
  }

  get #nodes(): readonly Member[] {
    return this.#members.filter(({ name }) => name.startsWith('node'))
  }

  get outsideWorkers(): readonly string[] {
    return this.#members.filter(({ name }) => name.startsWith('worker')).map(({ name }) => name)
  }

  /** Where the nodes keep large payloads. */
  get payloadDirs(): readonly string[] {
    const dirs = this.#nodes.map(({ environment }) => environment.MUSTER_DATA_DIR as string)
    return this.isTwoNodes ? [...dirs, join(this.folder, 'disk/payloads')] : dirs
  }

  get redis(): RedisPlace {
    const { environment } = this.#nodes[0] as Member
    const { MUSTER_REDIS_URL: url, MUSTER_REDIS_CA_FILE: caFile, MUSTER_REDIS_TLS_NAME: tlsName } = environment
    if (url === undefined) return { socket: join(environment.MUSTER_DATA_DIR as string, 'redis/redis.sock') }
    return { url, ...(caFile !== undefined && { caFile }), ...(tlsName !== undefined && { tlsName }) }
  }

  pidOf(name: string): number | undefined {
    return this.#member(name).child?.pid
  }

  /** All processes of the deployment, by what they are. */
  async processes(): Promise<ProcessInfo[]> {
    return await this.#watch.look(this.#members.flatMap(({ child }) => child?.pid ?? []))
  }

  /** SIGKILL, or another signal, and starts it again when it has ended. */
  async restart(
    name: string,
    signal: NodeJS.Signals,
    environment: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const member = this.#member(name)
    await this.#end(member, signal)
    if (!this.#isOver) this.#launch({ ...member, environment: { ...member.environment, ...environment } })
  }

  /** Until every node says that it is ready. @throws Error after three minutes */
  async untilReady(): Promise<void> {
    const deadline = Date.now() + startsWithinMs
    for (const url of this.urls) {
      for (let last = 'nothing'; ; ) {
        try {
          const reply = await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(5000) })
          if (reply.status === 200) break
          last = (await reply.text()).slice(0, 300)
        } catch (error) {
          last = String((error as Error).cause ?? error)
        }
        if (this.#startFault !== undefined) throw new Error(this.#startFault)
        if (Date.now() > deadline)
          throw new Error(`${url} is not ready after ${startsWithinMs} ms: ${last}\n${await this.logs()}`)
        await delay(100)
      }
    }
  }

  /** The ends of the logs of the nodes. */
  async logs(): Promise<string> {
    const texts = await Promise.all(
      this.#members.map(async ({ name }) => {
        const text = await readFile(join(this.folder, `${name}.log`), 'utf8').catch(() => '')
        return `--- ${name}\n${text.slice(-3000)}`
      }),
    )
    return texts.join('\n')
  }

  /** In good order. @returns what still runs although all is stopped */
  async stop(): Promise<ProcessInfo[]> {
    this.#isOver = true
    await this.processes()
    for (const kind of ['worker', 'node', 'redis'])
      await Promise.all(
        this.#members
          .filter(({ name }) => name.startsWith(kind))
          .map(async member => await this.#end(member, 'SIGTERM')),
      )
    let left = await this.processes()
    // Workers end themselves when their node has told them to.
    for (const deadline = Date.now() + 60_000; left.length > 0 && Date.now() < deadline; left = await this.processes())
      await delay(250)
    for (const { pid } of left) kill(pid, 'SIGKILL')
    if (!this.#options.keep) this.disk?.unmount()
    if (!this.#options.keep && this.#options.dataDir === undefined)
      await rm(this.folder, { recursive: true, force: true })
    return left
  }

  async #startAll(ports: readonly number[]): Promise<void> {
    const { root, twoNodes, hasWorkerUser, say } = this.#options
    const cli = join(root, 'dist/cli.js')
    const configFile = join(this.folder, 'muster.yaml')
    await writeFile(
      configFile,
      'queues:\n  second: { minWorkers: 0, maxWorkers: 1, slots: 1 }\n  foreign: { minWorkers: 0, maxWorkers: 0 }\n',
    )
    const redis = twoNodes ? await this.#makeReplicas(cli) : {}
    const disk = join(this.folder, 'disk')
    this.disk = await SmallDisk.mount(disk).catch((error: Error) => {
      say(`no disk is filled: none can be mounted here (${error.message.trim().split('\n').at(-1)})`)
      return undefined
    })
    const payloads = join(disk, 'payloads')
    await mkdir(payloads, { recursive: true })
    const handlers = join(root, 'test/drive/handlers.mjs')
    this.handlers = await readFile(handlers, 'utf8')
    const workerUser = hasWorkerUser ? await strangerWho(cli, say) : undefined
    if (workerUser !== undefined) await chmod(this.folder, 0o755)
    for (const [index, port] of ports.entries()) {
      const dataDir = join(disk, `data-${index + 1}`)
      await mkdir(dataDir, { recursive: true })
      this.#launch({
        ...{ name: `node-${index + 1}`, command: [process.execPath, cli, 'node', '--handlers', handlers] },
        ...{ child: undefined, isEnding: false },
        environment: {
          ...redis,
          MUSTER_PORT: String(port),
          MUSTER_DATA_DIR: dataDir,
          MUSTER_CONFIG_FILE: configFile,
          MUSTER_LEASE_MS: String(limits.leaseMs),
          MUSTER_MAX_BODY_BYTES: String(limits.maxBodyBytes),
          MUSTER_BACKOFF_MS: '50',
          MUSTER_AUTOSCALE_INTERVAL_MS: '300',
          MUSTER_IDLE_TIMEOUT_MS: '4000',
          MUSTER_MAX_WORKERS: '2',
          MUSTER_WORKER_SLOTS: '2',
          MUSTER_WORKER_HEAP_MB: '128',
          MUSTER_WORKER_DRAIN_MS: '5000',
          MUSTER_MAX_REQUESTS_PER_CALLER: '64',
          MUSTER_DISK_RESERVE_MB: String(diskReserveMib),
          ...(workerUser !== undefined && { MUSTER_WORKER_USER: workerUser }),
          ...(twoNodes && { MUSTER_PAYLOAD_STORE: `folder:${payloads}` }),
        },
      })
    }
    await this.untilReady()
    this.#isStarted = true
  }

  /** Workers that the deployment does not start itself: one in another language, and one with a part of the handlers. */
  startOutsideWorkers(token: string): void {
    const { root } = this.#options
    const environment = { MUSTER_NODE_URLS: this.urls.join(','), MUSTER_WORKER_TOKEN: token }
    const part = join(root, 'test/drive/handlers-part.mjs')
    this.#launch({
      name: 'worker-part',
      command: [process.execPath, join(root, 'dist/cli.js'), 'worker', '--handlers', part, '--slots', '1'],
      ...{ child: undefined, isEnding: false, environment },
    })
    this.#launch({
      ...{ name: 'worker-foreign', command: ['python3', '-u', join(root, 'examples/worker.py')] },
      ...{ child: undefined, isEnding: false },
      environment: { ...environment, MUSTER_QUEUE: 'foreign' },
    })
  }

  /** Three replicas of Redis and their Sentinels. @returns what nodes are told of them */
  async #makeReplicas(cli: string): Promise<Record<string, string>> {
    const block = `127.${1 + (process.pid % 250)}.7`
    const hosts = ['a', 'b', 'c'].map((name, index) => `${name}=${block}.${index + 1}`)
    const out = join(this.folder, 'redis')
    await run(process.execPath, [
      cli,
      'redis',
      'init',
      '--hosts',
      hosts.join(','),
      '--out',
      out,
      '--max-memory-mb',
      '1024',
    ])
    for (const name of ['a', 'b', 'c'])
      this.#launch({
        ...{ name: `redis-${name}`, command: [process.execPath, cli, 'redis', 'run', '--dir', join(out, name)] },
        ...{ environment: {}, child: undefined, isEnding: false },
      })
    const lines = (await readFile(join(out, 'node.env'), 'utf8')).split('\n')
    const pairs = lines.map(line => /^([A-Z_]+)=(.*)$/.exec(line)).filter(match => match !== null)
    return Object.fromEntries(pairs.map(([, name = '', value = '']) => [name, value.replace(/^(["'])(.*)\1$/, '$2')]))
  }

  #launch(given: Member): void {
    const member = { ...given, isEnding: false }
    const inherited = Object.entries(process.env).filter(([name]) => !/^(MUSTER_|NODE_OPTIONS|NODE_V8|TAP)/.test(name))
    const [program = '', ...args] = [...ties, ...member.command]
    const env = { ...Object.fromEntries(inherited), ...member.environment }
    const child = spawn(program, args, { cwd: this.folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
    const log = createWriteStream(join(this.folder, `${member.name}.log`), { flags: 'a' })
    log.on('error', () => undefined)
    child.stdout.on('data', chunk => log.write(chunk))
    child.stderr.on('data', chunk => log.write(chunk))
    member.child = child
    const index = this.#members.findIndex(({ name }) => name === member.name)
    if (index === -1) this.#members.push(member)
    else this.#members[index] = member
    child.once('exit', (code, signal) => void this.#ended(member, code ?? signal ?? 'unknown'))
  }

  async #ended(member: Member, how: number | string): Promise<void> {
    if (member.isEnding || this.#isOver) return
    // It was told to go, or a move has killed it: an operator would start another one.
    if (member.name.startsWith('worker') && (how === 0 || how === 'SIGKILL')) {
      this.#launch(member)
      return
    }
    const log = await readFile(join(this.folder, `${member.name}.log`), 'utf8').catch(() => '')
    if (!this.#isStarted) {
      this.#startFault = `${member.name} ended while it was started (${how}):\n${log.slice(-2000)}`
      return
    }
    this.#options.onSurprise(`${member.name} ended by itself (${how}):\n${log.slice(-2000)}`)
    if (!this.#isOver) this.#launch(member)
  }

  async #end(member: Member, signal: NodeJS.Signals): Promise<void> {
    member.isEnding = true
    const { child } = member
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill(signal)
    const timer = setTimeout(() => {
      this.#options.onSurprise(`${member.name} did not end within a minute of ${signal}`)
      child.kill('SIGKILL')
    }, 60_000)
    await gone
    clearTimeout(timer)
  }

  #member(name: string): Member {
    const member = this.#members.find(one => one.name === name)
    if (member === undefined) throw new Error(`no ${name} in this deployment`)
    return member
  }
}

/** @returns a user who can run the command of this tree and owns nothing here; undefined, and says why, when there is none */
async function strangerWho(cli: string, say: (line: string) => void): Promise<string | undefined> {
  const name = 'nobody'
  try {
    if (process.getuid?.() !== 0) throw new Error('only root may')
    await run('setpriv', ['--reuid', name, '--clear-groups', process.execPath, cli, '--version'])
    return name
  } catch (error) {
    say(`local workers run as the user of the node: ${(error as Error).message.split('\n').at(-1)}`)
    return undefined
  }
}

export function kill(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}
