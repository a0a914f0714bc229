/**
 * The local provider: an instance is a worker process on this machine, in a process group of its own, that outlives a
 * node which is killed, and is adopted by the next one.
 *
 * running ── SIGTERM ──▶ terminating (the worker drains itself) ── grace over, or force: SIGKILL to the group ──▶ ended
 *    └──────────────────────────── the process ends by itself ──────────────────────────────────────────────────▶ ended
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import { endOrphans } from '../../../marked-processes.ts'
import { processIdentity, signalProcess } from '../../../process-identity.ts'
import { type Instance, LaunchError, type LaunchFailure, type LaunchRequest, type Provider } from '../provider.ts'
import type { WorkerUser } from '../worker-environment.ts'
import { type InstanceRecord, InstanceRecords } from './instance-records.ts'
import { StoppedWatch } from './stopped-watch.ts'

export interface LocalProviderOptions {
  readonly dataDir: string
  /** Program and arguments of a worker; `--queue <pool>` is added. */
  readonly workerCommand: readonly string[]
  /** The whole environment of the workers; the id of the instance, its slots and its token are added. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The first token of an instance; left out: none is needed. */
  readonly tokenFor?: (instanceId: string, pool: string) => string
  /** Whom the workers run as; left out: the user of the node. */
  readonly user?: WorkerUser | undefined
  /** How long an instance that was told to end may take. */
  readonly terminateGraceMs: number
  /** The same when the node stops. */
  readonly closeGraceMs: number
  readonly log: FastifyBaseLogger
}

/** How long the kernel may take to end a process group after SIGKILL. */
const killTimeoutMs = 5000
const pollMs = 20
/** How long the event of a child's end may take to arrive. */
const exitEventMs = 1000
const bootTailBytes = 4096

/** Adopts what an earlier node left running under the same data directory. */
export function createLocalProvider(options: LocalProviderOptions): Provider {
  return new LocalProvider(options)
}

class LocalProvider implements Provider {
  readonly endsWithNode = true
  readonly #options: LocalProviderOptions
  readonly #records: InstanceRecords
  readonly #byId = new Map<string, InstanceRecord>()
  /** Processes that this node started itself: it hears of their end. */
  readonly #children = new Map<string, ChildProcess>()
  readonly #killTimers = new Map<string, NodeJS.Timeout>()
  readonly #changes = new EventEmitter().setMaxListeners(0)
  readonly #idPrefix: string
  readonly #stoppedWatch: StoppedWatch<InstanceRecord>
  #closed = false

  constructor(options: LocalProviderOptions) {
    this.#options = options
    this.#records = new InstanceRecords(join(options.dataDir, 'instances'))
    const home = createHash('sha256').update(`${hostname()}:${options.dataDir}`).digest('hex').slice(0, 8)
    this.#idPrefix = `local-${home}-`
    this.#adopt()
    this.#stoppedWatch = new StoppedWatch({
      running: () => [...this.#byId.values()].filter(record => this.#checkAlive(record)),
      kill: record => this.#kill(record),
      log: options.log,
    })
  }

  async launch({ pool, count, decisionId, slots }: LaunchRequest): Promise<Instance[]> {
    if (this.#closed) throw new Error('The local provider is closed')
    const before = [...this.#byId.values()].filter(record => record.decisionId === decisionId)
    if (before.length > 0) return before.map(toInstance)
    const launched: Instance[] = []
    let failure: unknown
    for (let n = 0; n < count; n += 1) {
      try {
        launched.push(toInstance(await this.#spawn(pool, decisionId, slots)))
      } catch (error) {
        failure = error
      }
    }
    if (launched.length === 0 && count > 0)
      throw new LaunchError(`No worker process could be started for queue ${pool}`, [describe(failure)], {
        cause: failure,
      })
    return launched
  }

  async list(): Promise<Instance[]> {
    await Promise.all([...this.#byId.values()].map(record => this.#awaitDeath(record)))
    return [...this.#byId.values()].filter(record => this.#checkAlive(record)).map(toInstance)
  }

  async terminate(ids: readonly string[], { force = false } = {}): Promise<void> {
    for (const id of ids) {
      const record = this.#byId.get(id)
      if (record === undefined || !this.#checkAlive(record)) continue
      if (force) this.#kill(record)
      else if (record.terminatingAt === undefined) this.#askToEnd(record)
    }
  }

  manages(instanceId: string): boolean {
    return instanceId.startsWith(this.#idPrefix)
  }

  async explainBoot(instanceId: string): Promise<string | undefined> {
    return this.#byId.has(instanceId) ? this.#records.readLogTail(instanceId, bootTailBytes) : undefined
  }

  /** Nothing that costs money: records and logs of ended instances are pruned as they end. */
  async sweepLeftovers(): Promise<string[]> {
    return []
  }

  onChange(listener: () => void): () => void {
    this.#changes.on('change', listener)
    return () => {
      this.#changes.off('change', listener)
    }
  }

  async close({ stopInstances }: { readonly stopInstances: boolean }): Promise<void> {
    this.#closed = true
    if (stopInstances) await this.#stopAll()
    this.#stoppedWatch.stop()
    for (const timer of this.#killTimers.values()) clearTimeout(timer)
    this.#killTimers.clear()
    this.#changes.removeAllListeners()
  }

  /** Their slots end with them: by themselves, unless a signal has stopped them. */
  endNow(): void {
    this.#closed = true
    const running = [...this.#byId.values()].filter(record => this.#checkAlive(record))
    for (const record of running) this.#attempt('a worker could not be killed', () => this.#kill(record))
    this.#attempt('it is unknown whether workers have ended', () => blockUntilGone(running))
    this.#endOrphans()
  }

  async #stopAll(): Promise<void> {
    const running = (): InstanceRecord[] => [...this.#byId.values()].filter(record => this.#checkAlive(record))
    for (const record of running()) if (record.terminatingAt === undefined) this.#askToEnd(record)
    if (await this.#poll(() => running().length === 0, this.#options.closeGraceMs)) return
    for (const record of running()) this.#kill(record)
    if (await this.#poll(() => running().length === 0, killTimeoutMs)) return
    this.#options.log.error({ pids: running().map(({ pid }) => pid) }, 'worker processes cannot be killed')
  }

  async #poll(condition: () => boolean, limitMs: number): Promise<boolean> {
    const deadline = performance.now() + limitMs
    while (!condition()) {
      if (performance.now() >= deadline) return false
      await delay(pollMs)
    }
    return true
  }

  /** @throws when there is no process or no place for its record; nothing is left running or lying about then */
  async #spawn(pool: string, decisionId: string, slots: number): Promise<InstanceRecord> {
    const id = this.#idPrefix + randomBytes(6).toString('hex')
    try {
      this.#records.ensureFolder()
      const record = { id, pool, slots, decisionId, pid: 0, identity: '', launchedAt: Date.now() }
      // Without a pid it counts for nobody. Where it has no place, no process is started for nothing.
      this.#records.write(record)
      return await this.#startProcess(record)
    } catch (error) {
      this.#attempt('a launch that failed left files behind', () => this.#records.remove(id))
      throw error
    }
  }

  async #startProcess(draft: InstanceRecord): Promise<InstanceRecord> {
    const { id, pool, slots } = draft
    const { workerCommand, environment, tokenFor, user } = this.#options
    const [program = '', ...args] = workerCommand
    const output = openSync(this.#records.logFile(id), 'a', 0o600)
    const token = tokenFor === undefined ? {} : { MUSTER_WORKER_TOKEN: tokenFor(id, pool) }
    const env = { ...environment, ...token, MUSTER_INSTANCE_ID: id, MUSTER_WORKER_SLOTS: String(slots) }
    try {
      const child = spawn(program, [...args, '--queue', pool], {
        detached: true,
        stdio: ['ignore', output, output],
        env,
        ...(user !== undefined && { ...user, cwd: '/' }),
      })
      const { pid } = child
      if (pid === undefined) throw await new Promise<Error>(resolve => child.once('error', resolve))
      child.unref()
      child.on('error', error => this.#options.log.error({ instanceId: id, err: error }, 'worker process'))
      // A process that has ended already is a zombie until its exit event: it gets a record, too, and its end is noted there.
      const record = { ...draft, pid, identity: processIdentity(pid) ?? 'ended' }
      try {
        this.#records.write(record)
      } catch (error) {
        // Nobody would find it again.
        signalProcess(-pid, 'SIGKILL')
        throw error
      }
      this.#byId.set(id, record)
      this.#watch(record, child)
      return record
    } finally {
      closeSync(output)
    }
  }

  #watch(record: InstanceRecord, child: ChildProcess): void {
    this.#children.set(record.id, child)
    child.once('exit', (code, signal) => this.#ended(record, signal ?? code ?? undefined))
  }

  #adopt(): void {
    for (const record of this.#records.readAll()) {
      this.#byId.set(record.id, record)
      if (record.endedAt !== undefined || !this.#checkAlive(record)) continue
      this.#options.log.info(
        { instanceId: record.id, pid: record.pid, queue: record.pool },
        'adopted a worker that was running already',
      )
      if (record.terminatingAt !== undefined)
        this.#killAt(record, record.terminatingAt + this.#options.terminateGraceMs)
    }
    this.#prune()
  }

  /** Notices the end of processes that are not our children. */
  #checkAlive(record: InstanceRecord): boolean {
    if (record.endedAt !== undefined) return false
    const child = this.#children.get(record.id)
    const alive =
      child === undefined
        ? processIdentity(record.pid) === record.identity
        : child.exitCode === null && child.signalCode === null
    if (!alive) this.#ended(record, child?.signalCode ?? child?.exitCode ?? undefined)
    return alive
  }

  /** One that has just died is gone, although the event that tells how it ended may be on its way yet. */
  async #awaitDeath(record: InstanceRecord): Promise<void> {
    const child = this.#children.get(record.id)
    if (child === undefined || processIdentity(record.pid) === record.identity) return
    await this.#poll(() => record.endedAt !== undefined, exitEventMs)
  }

  #askToEnd(record: InstanceRecord): void {
    record.terminatingAt = Date.now()
    this.#note(record)
    signalProcess(record.pid, 'SIGTERM')
    this.#killAt(record, record.terminatingAt + this.#options.terminateGraceMs)
  }

  #killAt(record: InstanceRecord, at: number): void {
    const timer = setTimeout(() => this.#checkAlive(record) && this.#kill(record), Math.max(0, at - Date.now()))
    timer.unref()
    this.#killTimers.set(record.id, timer)
  }

  #kill(record: InstanceRecord): void {
    record.terminatingAt ??= Date.now()
    signalProcess(-record.pid, 'SIGKILL')
  }

  #ended(record: InstanceRecord, endedWith: number | string | undefined): void {
    if (record.endedAt !== undefined) return
    record.endedAt = Date.now()
    if (endedWith !== undefined) record.endedWith = endedWith
    this.#children.delete(record.id)
    clearTimeout(this.#killTimers.get(record.id))
    this.#killTimers.delete(record.id)
    // What the worker started may outlive it. Its pid stays taken as long as its group has members, so this hits nobody else,
    // unless all are gone and the pid is in use again: then a stranger leads the group.
    if (processIdentity(record.pid) === undefined) signalProcess(-record.pid, 'SIGKILL')
    this.#endOrphans()
    this.#note(record)
    this.#prune()
    const { log } = this.#options
    const details = { instanceId: record.id, queue: record.pool, pid: record.pid, endedWith }
    if (record.terminatingAt === undefined && endedWith !== 0)
      log.warn({ ...details, logFile: this.#records.logFile(record.id) }, 'a worker process ended by itself')
    else log.info(details, 'a worker process ended')
    this.#changes.emit('change')
  }

  /** Slots of workers that are gone, and what these started, if they could not end by themselves. */
  #endOrphans(): void {
    const { user } = this.#options
    endOrphans(user === undefined ? [] : [user.uid])
  }

  #prune(): void {
    this.#attempt('records of ended workers could not be removed', () => {
      const kept = new Set(this.#records.prune([...this.#byId.values()]))
      for (const record of this.#byId.values()) if (!kept.has(record)) this.#byId.delete(record.id)
    })
  }

  /** What became of a process stands here in any case. On a disk that takes nothing, the next node finds out by itself. */
  #note(record: InstanceRecord): void {
    this.#attempt('the record of a worker could not be written', () => this.#records.write(record))
  }

  /** For listeners and timers, where an error would end the node. */
  #attempt(failed: string, write: () => void): void {
    try {
      write()
    } catch (error) {
      this.#options.log.error({ err: error, dataDir: this.#options.dataDir }, failed)
    }
  }
}

/** Only when workers are gone can be told what they leave behind. For a caller that ends next: nothing else happens meanwhile. */
function blockUntilGone(records: readonly InstanceRecord[]): void {
  const nobodyWakes = new Int32Array(new SharedArrayBuffer(4))
  const deadline = performance.now() + killTimeoutMs
  while (records.some(({ pid, identity }) => processIdentity(pid) === identity) && performance.now() < deadline)
    Atomics.wait(nobodyWakes, 0, 0, pollMs)
}

function toInstance({ id, pool, slots, decisionId, launchedAt, terminatingAt }: InstanceRecord): Instance {
  return { id, pool, slots, decisionId, launchedAt, state: terminatingAt === undefined ? 'running' : 'terminating' }
}

function describe(failure: unknown): LaunchFailure {
  const { code = 'Error', message } = failure as NodeJS.ErrnoException
  return { code, message, throttled: false, capacity: false }
}
