/**
 * One host: its processes, and what can be done to them. A role is a process that is started here, like `node` or `redis`; what
 * those start themselves (redis-server, slots) is found by the folder in which it runs.
 *
 *   role: not started ──start──▶ running ──kill, end──▶ ended ──startAgain──▶ running
 *   host: on ──powerOff──▶ off ──powerOn──▶ on (all roles started again)
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { HostName, Network } from './network.ts'
import { type FoundProcess, killAllUnder, processesUnder, signalProcess } from './process-table.ts'
import { waitFor } from './wait-for.ts'

interface Role {
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly child: ChildProcess
}

export interface HostOptions {
  readonly name: HostName
  readonly network: Network
  readonly folder: string
  /** The run is over: what ends now is not started again. */
  readonly over: AbortSignal
  /** Told when a role ended by itself. */
  readonly onSurprise: (sentence: string) => void
}

/** As a supervisor like systemd would. */
const startAgainAfterMs = 1000

export class Host {
  readonly name: HostName
  readonly address: string
  readonly folder: string
  readonly #options: HostOptions
  readonly #network: Network
  readonly #roles = new Map<string, Role>()
  /** Processes that the harness ended: nobody starts these again but the heal. */
  readonly #ended = new Set<number>()
  readonly #stopped = new Set<number>()
  #isOff = false

  constructor(options: HostOptions) {
    this.#options = options
    this.name = options.name
    this.address = options.network.addressOf(options.name)
    this.folder = options.folder
    this.#network = options.network
    mkdirSync(this.folder, { recursive: true })
  }

  get isOff(): boolean {
    return this.#isOff
  }

  get roles(): string[] {
    return [...this.#roles.keys()]
  }

  /** Starts a process in its own process group; it logs into `<role>.log` in the folder of the host. */
  start(role: string, command: readonly string[], environment: Readonly<Record<string, string>> = {}): ChildProcess {
    if (this.isRunning(role)) throw new Error(`${role} runs already on ${this.name}`)
    const [program, ...args] = this.#network.commandOn(this.name, command)
    const log = openSync(join(this.folder, `${role}.log`), 'a')
    const child = spawn(program as string, args, {
      cwd: this.folder,
      detached: true,
      env: { ...inherited(), ...environment },
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    // Otherwise a command that is missing would end this process; it shows as a role that does not run.
    child.on('error', () => undefined)
    child.on('exit', () => this.#onExit(role, child))
    this.#roles.set(role, { command, environment, child })
    return child
  }

  /** Starts a role again as it was started before. Does nothing when it runs. */
  startAgain(role: string): void {
    const { command, environment } = this.#role(role)
    if (!this.isRunning(role)) this.start(role, command, environment)
  }

  isRunning(role: string): boolean {
    const child = this.#roles.get(role)?.child
    return child?.pid !== undefined && child.exitCode === null && child.signalCode === null
  }

  /** The roles that do not run. */
  get missing(): string[] {
    return this.roles.filter(role => !this.isRunning(role)).map(role => `${role} on ${this.name} does not run`)
  }

  /** @throws Error when it does not run */
  pidOf(role: string): number {
    const { pid } = this.#role(role).child
    if (pid === undefined || !this.isRunning(role)) throw new Error(`${role} does not run on ${this.name}`)
    return pid
  }

  /** The Redis of this host, started by its role `redis`. @throws Error when there is none */
  async redisServerPid(): Promise<number> {
    const found = await waitFor(async () => (await this.processes()).find(isRedisServer)?.pid, 2000)
    if (found === undefined) throw new Error(`no redis-server runs on ${this.name}`)
    return found
  }

  /** All that runs on it, also what its roles started. */
  async processes(): Promise<FoundProcess[]> {
    return await processesUnder(this.folder)
  }

  kill(pid: number): void {
    this.#ended.add(pid)
    signalProcess(pid, 'SIGKILL')
  }

  /** SIGSTOP: there, connected and silent. */
  stop(pid: number): void {
    this.#stopped.add(pid)
    signalProcess(pid, 'SIGSTOP')
  }

  /** SIGCONT for all that was stopped. */
  continueAll(): void {
    for (const pid of this.#stopped) signalProcess(pid, 'SIGCONT')
    this.#stopped.clear()
  }

  /** SIGTERM, and waits for the end. @throws Error when it has not ended in time */
  async end(role: string, withinMs = 120_000): Promise<void> {
    const { child } = this.#role(role)
    if (!this.isRunning(role)) return
    const ended = once(child, 'exit', { signal: AbortSignal.timeout(withinMs) })
    this.#ended.add(this.pidOf(role))
    child.kill('SIGTERM')
    await ended.catch(() => {
      throw new Error(`${role} on ${this.name} did not end within ${withinMs} ms of SIGTERM`)
    })
  }

  /**
   * Loses power: link down, then SIGKILL of all on it.
   * @param atOnce called in the moment from which nothing gets through
   */
  async powerOff(atOnce: () => void = () => undefined): Promise<void> {
    await this.#network.cut(this.name)
    atOnce()
    await this.killAll()
    this.#isOff = true
  }

  /** SIGKILL of all on it, by the network as it is. */
  async killAll(): Promise<void> {
    for (const role of this.roles) if (this.isRunning(role)) this.#ended.add(this.pidOf(role))
    await killAllUnder(this.folder)
    this.#stopped.clear()
  }

  /** Comes back as after a boot: no connection of before, all its roles started. */
  async powerOn(): Promise<void> {
    if (this.#isOff) await this.#network.rebuild(this.name)
    this.#isOff = false
    await this.startAll()
  }

  /** Starts the roles that do not run. */
  async startAll(): Promise<void> {
    for (const role of this.roles) this.startAgain(role)
  }

  #onExit(role: string, child: ChildProcess): void {
    if (this.#options.over.aborted || this.#ended.has(child.pid ?? 0)) return
    const said =
      readFileSync(join(this.folder, `${role}.log`), 'utf8')
        .trim()
        .split('\n')
        .at(-1) ?? ''
    const how = child.signalCode ?? child.exitCode
    this.#options.onSurprise(`${role} on ${this.name} ended by itself (${how}): ${said.slice(0, 300)}`)
    setTimeout(() => {
      if (!this.#options.over.aborted && this.#roles.get(role)?.child === child) this.startAgain(role)
    }, startAgainAfterMs)
  }

  #role(role: string): Role {
    const found = this.#roles.get(role)
    if (found === undefined) throw new Error(`${role} was never started on ${this.name}`)
    return found
  }
}

const isRedisServer = ({ command }: FoundProcess): boolean =>
  /^\S*redis-server /.test(command) && !/sentinel/.test(command)

/** No setting of whoever runs this may leak into what is tested. */
const inherited = (): Record<string, string> =>
  Object.fromEntries(
    Object.entries(process.env).filter(
      (entry): entry is [string, string] =>
        entry[1] !== undefined && !/^(MUSTER_|TAP|NODE_OPTIONS$|NODE_V8_COVERAGE$|PORT$)/.test(entry[0]),
    ),
  )
