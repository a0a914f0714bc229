/**
 * Runs the Redis and the Sentinel of one host.
 *
 *   stopped ──start()──▶ asking ──start role: primary or replica──▶ running ──stop()──▶ switchover ──▶ stopped
 *                          ▲  └── wait, ask again ──┘              │
 *                          └────────── ended by itself ◀───────────┘
 *
 * Sentinel runs all the time: it is one of those that are asked. A Redis that died as primary is not brought back
 * before another primary took over or none can. Both servers end with this process, where the system can do that.
 */
import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { type DataDirLock, lockDataDir } from '../data-dir-lock.ts'
import { findRedisBinary, type RedisBinary } from '../redis-binary.ts'
import {
  endLeftover,
  keepRunning,
  launchServer,
  notedPid,
  rotateLog,
  type ServerProcess,
  tailOf,
} from '../server-process.ts'
import { ask, askOthers, askRedisInfo, openTargets, surveyGroup, type Target, type Targets } from './probe.ts'
import { defaultDataDir, type Host, readServerConfig, type ServerConfig, sidesOf } from './replication-group.ts'
import { type DataFiles, dataFiles, holdsNoData, makeDataDir, writeRedisConf, writeSentinelConf } from './run-files.ts'
import { type SentinelBelief, watchForStaleSentinel } from './stale-sentinel.ts'
import { barOf, decideStart, type StartDecision } from './start-role.ts'
import { switchover } from './switchover.ts'

const askAgainMs = 250
const askFailoverEveryMs = 5000
const sayAgainMs = 30_000
const rotateEveryMs = 600_000

export interface ServerSupervisorOptions {
  /** The folder of this host, as `muster redis init` wrote it. */
  readonly folder: string
  /** Where Redis and Sentinel write (default: `data` in `folder`). */
  readonly dataDir?: string
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>
}

interface Parts {
  readonly config: ServerConfig
  readonly targets: Targets
  readonly binary: RedisBinary
  readonly lock: DataDirLock
}

/** A replica that Sentinel is not to promote yet. */
interface Barred {
  readonly primary: Host
  readonly wasEmpty: boolean
  readonly child: ServerProcess
}

export class ServerSupervisor {
  readonly #folder: string
  readonly #files: DataFiles
  readonly #log: ServerSupervisorOptions['log']
  readonly #stopping = new AbortController()
  #parts: Parts | undefined
  #redis: ServerProcess | undefined
  #sentinel: ServerProcess | undefined
  /** Ended on purpose, to be started again. */
  readonly #renewed = new WeakSet<ServerProcess>()
  #loops: Promise<unknown> = Promise.resolve()
  #rotation: NodeJS.Timeout | undefined
  #stopped: Promise<void> | undefined

  constructor({ folder, dataDir, log }: ServerSupervisorOptions) {
    this.#folder = resolve(folder)
    this.#files = dataFiles(resolve(dataDir ?? defaultDataDir(folder)))
    this.#log = log
  }

  /**
   * Starts Sentinel, and goes on to start Redis once its start role is known. To be called once.
   * @throws StartupError when the folder is none of ours, redis-server is missing, or the data directory is in use
   */
  async start(): Promise<void> {
    const config = await readServerConfig(this.#folder)
    const targets = await openTargets(this.#folder, config)
    const binary = await findRedisBinary()
    await makeDataDir(this.#files.dataDir)
    const lock = await lockDataDir(this.#files.dataDir)
    try {
      for (const { pid, config: file } of [this.#files.redis, this.#files.sentinel]) {
        const leftover = await notedPid(pid, [file])
        if (leftover !== undefined) await endLeftover(leftover, file)
      }
      await writeSentinelConf(config, this.#folder, this.#files)
    } catch (error) {
      await lock.release()
      throw error
    }
    const parts = { config, targets, binary, lock }
    this.#parts = parts
    this.#rotation = setInterval(() => void this.#rotate(), rotateEveryMs).unref()
    this.#log.info(
      { host: config.host, dataDir: this.#files.dataDir },
      'starting the Redis and the Sentinel of this host',
    )
    this.#loops = Promise.all([this.#keepSentinel(parts), this.#keepRedis(parts), this.#watchSentinel(parts)])
  }

  /**
   * Stops Redis and then Sentinel, within 60 s. A primary first makes a switchover, unless `failover` is false.
   * May be called again.
   */
  stop({ failover = true }: { failover?: boolean } = {}): Promise<void> {
    this.#stopped ??= this.#stop(failover)
    return this.#stopped
  }

  async #stop(failover: boolean): Promise<void> {
    this.#stopping.abort()
    clearInterval(this.#rotation)
    const parts = this.#parts
    if (parts === undefined) return
    if (failover && this.#redis !== undefined && !this.#redis.hasEnded()) await this.#switchOver(parts)
    await this.#redis?.end()
    await this.#sentinel?.end()
    await this.#loops
    await parts.lock.release()
    this.#log.info('stopped')
  }

  async #switchOver({ config, targets }: Parts): Promise<void> {
    const { own, others } = sidesOf(config)
    const sentinels = [own, ...others].map(targets.sentinel)
    const outcome = await switchover({ redis: targets.redis(own), sentinels, name: config.name, log: this.#log })
    if (outcome.outcome === 'moved') this.#log.info({ to: outcome.to }, 'another host is primary now')
    if (outcome.outcome === 'failed')
      this.#log.warn({ reason: outcome.reason }, 'the switchover failed: a failover has to follow')
  }

  /** Sentinel is started again each time it ends. */
  async #keepSentinel(parts: Parts): Promise<void> {
    await this.#keep('Sentinel', this.#files.sentinel.log, () => {
      this.#sentinel = launchServer(parts.binary, [this.#files.sentinel.config, '--sentinel'])
      return Promise.resolve(this.#sentinel)
    })
  }

  async #watchSentinel({ config, targets }: Parts): Promise<void> {
    await watchForStaleSentinel({
      sentinel: targets.sentinel(sidesOf(config).own),
      ...{ name: config.name, hostCount: config.hosts.length, signal: this.#stopping.signal },
      onStale: async belief => await this.#renewSentinel(belief),
    })
  }

  async #renewSentinel({ claimants }: SentinelBelief): Promise<void> {
    this.#log.warn(
      { claimants },
      'Sentinel is cut off from the others, and what it knows of who is primary may be outdated: it is started again',
    )
    if (this.#sentinel === undefined) return
    this.#renewed.add(this.#sentinel)
    await this.#sentinel.end()
  }

  /** Redis starts only in its start role, each time. */
  async #keepRedis(parts: Parts): Promise<void> {
    await this.#keep('Redis', this.#files.redis.log, async () => {
      const decision = await this.#decide(parts)
      if (decision === undefined) return undefined
      const of = decision.act === 'replica' ? decision.of : undefined
      const isEmpty = await holdsNoData(this.#files.dataDir)
      const isBarred = of !== undefined && (isEmpty || (await this.#isSilent(parts, of)))
      await writeRedisConf(parts.config, this.#folder, this.#files, { isBarred, ...(of && { of }) })
      if (this.#stopping.signal.aborted) return undefined
      const child = launchServer(parts.binary, [this.#files.redis.config])
      this.#redis = child
      this.#log.info(
        { pid: child.pid, reason: decision.reason },
        `Redis starts as ${of ? `replica of ${of.name}` : 'primary'}`,
      )
      if (isBarred) void this.#unbar(parts, { primary: of, wasEmpty: isEmpty, child })
      return child
    })
  }

  async #keep(what: string, logFile: string, launch: () => Promise<ServerProcess | undefined>): Promise<void> {
    await keepRunning({
      ...{ launch, signal: this.#stopping.signal, isPlanned: server => this.#renewed.has(server) },
      onEnd: async how => this.#log.error({ ...how, lastWords: await tailOf(logFile) }, `${what} ended by itself`),
    })
  }

  /** Asks until there is an answer; undefined: stopped meanwhile. */
  async #decide({ config, targets }: Parts): Promise<Exclude<StartDecision, { act: 'wait' }> | undefined> {
    const { own } = sidesOf(config)
    let namedSinceMs: number | undefined
    let askedFailoverMs = 0
    let said = ''
    let saidMs = 0
    while (!this.#stopping.signal.aborted) {
      const { sentinels, servers, silent } = await surveyGroup(config, targets)
      const nowMs = Date.now()
      const decision = decideStart({
        ...{ own, hosts: config.hosts, sentinels, servers, downAfterMs: config.downAfterMs },
        isEmpty: await holdsNoData(this.#files.dataDir),
        namedForMs: namedSinceMs === undefined ? 0 : nowMs - namedSinceMs,
      })
      if (decision.act !== 'wait') return decision
      namedSinceMs = decision.isNamed ? (namedSinceMs ?? nowMs) : undefined
      if (decision.reason !== said || nowMs - saidMs > sayAgainMs) {
        this.#log.info({ reason: decision.reason, silent }, 'Redis waits')
        said = decision.reason
        saidMs = nowMs
      }
      if (decision.wantsFailover && nowMs - askedFailoverMs > askFailoverEveryMs) {
        askedFailoverMs = nowMs
        await this.#askForFailover(config, targets)
      }
      await this.#pause(askAgainMs)
    }
    return undefined
  }

  async #askForFailover(config: ServerConfig, targets: Targets): Promise<void> {
    const { own } = sidesOf(config)
    try {
      await ask(targets.sentinel(own), 1000, client => client.call('SENTINEL', 'FAILOVER', config.name))
      this.#log.info('asked Sentinel for a failover to a server that has the data')
    } catch (error) {
      this.#log.warn({ reason: (error as Error).message }, 'Sentinel does not fail over')
    }
  }

  async #isSilent({ targets }: Parts, primary: Host): Promise<boolean> {
    return await askRedisInfo(targets.redis(primary), 500).then(
      () => false,
      () => true,
    )
  }

  /** Lets Sentinel promote the server, as soon as barOf() allows it. */
  async #unbar({ config, targets }: Parts, { primary, wasEmpty, child }: Barred): Promise<void> {
    const own = targets.redis(sidesOf(config).own)
    const startedMs = performance.now()
    let said = ''
    while (!this.#stopping.signal.aborted) {
      const [hasFollowed, servers] = await Promise.all([
        askRedisInfo(own, 1000).then(
          ({ role, isLinked, offset }) => role === 'primary' || isLinked || offset > 0,
          () => false,
        ),
        wasEmpty ? [] : askOthers(config, targets),
      ])
      // From then on it is another Redis that answers.
      if (child.hasEnded()) return
      const reason = barOf({ primary, wasEmpty, barredForMs: performance.now() - startedMs, hasFollowed, servers })
      if (reason === undefined && (await this.#setPriority(own))) {
        this.#log.info('Sentinel may promote this server now')
        return
      }
      if (reason !== undefined && reason !== said) {
        this.#log.info({ reason }, 'Sentinel may not promote this server yet')
        said = reason
      }
      await this.#pause(askAgainMs)
    }
  }

  /** @returns whether it is the same as that of the others now */
  async #setPriority(own: Target): Promise<boolean> {
    return await ask(own, 1000, client => client.config('SET', 'replica-priority', '100')).then(
      () => true,
      () => false,
    )
  }

  async #rotate(): Promise<void> {
    for (const { log } of [this.#files.redis, this.#files.sentinel]) {
      await rotateLog(log).catch((error: unknown) => this.#log.warn({ err: error }, 'a log cannot be renamed'))
    }
  }

  /** Ends early when stop() is called. */
  async #pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined)
  }
}
