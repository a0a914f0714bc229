/**
 * The Redis that a node starts for itself when it is given none.
 *
 *   stopped ──start()──▶ starting ──answers──▶ running ──stop()──▶ stopping ──▶ stopped
 *                            ▲                    │
 *                            └── after a delay ◀──┘ ended by itself
 *
 * Its data lies in `<dataDir>/redis`. It is stopped by stop(), by the death of the node (where the system can do that),
 * and else by the next node that starts on the same data directory.
 */
import type { ChildProcess } from 'node:child_process'
import { chmod, lstat, mkdir, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { resolve } from 'node:path'
import type { Logger } from 'pino'
import { inWords, isDiskFull, readDiskNow } from '../disk-space.ts'
import { StartupError } from '../errors.ts'
import { type DataDirLock, lockDataDir } from './data-dir-lock.ts'
import { type EmbeddedFiles, embeddedConfig, embeddedFiles } from './embedded-config.ts'
import { findRedisBinary, type RedisBinary } from './redis-binary.ts'
import { endLeftover, endRedis, launchRedis, untilAnswers } from './redis-process.ts'

const maxLogBytes = 5 * 1024 * 1024
/** A run that lasted this long counts as healthy: the next end is met by a restart without delay again. */
const healthyAfterMs = 30_000
const maxDelayMs = 5000

export interface EmbeddedOptions {
  readonly dataDir: string
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>
}

export class EmbeddedRedis {
  readonly #log: EmbeddedOptions['log']
  readonly #dataDir: string
  readonly #files: EmbeddedFiles
  #binary: RedisBinary | undefined
  #lock: DataDirLock | undefined
  #child: ChildProcess | undefined
  #restart: NodeJS.Timeout | undefined
  #starting: Promise<void> = Promise.resolve()
  #stopping: Promise<void> | undefined
  /** Ends in a row that came before the run was healthy. */
  #quickEnds = 0

  constructor({ dataDir, log }: EmbeddedOptions) {
    this.#log = log
    this.#dataDir = resolve(dataDir)
    this.#files = embeddedFiles(this.#dataDir, tmpdir())
  }

  /** The process that runs now, if any. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /**
   * Starts Redis and returns when it has loaded its data and answers. To be called once.
   * @throws StartupError when redis-server is missing or too old, another node uses the data directory, or Redis fails
   */
  async start(): Promise<{ socketPath: string }> {
    const files = this.#files
    this.#binary = await findRedisBinary()
    try {
      await mkdir(files.folder, { recursive: true, mode: 0o700 })
      if (files.socketFolder !== files.folder) await makePrivateFolder(files.socketFolder)
    } catch (error) {
      if (error instanceof StartupError) throw error
      throw new StartupError(`The data directory ${this.#dataDir} cannot be written: ${(error as Error).message}`, {
        cause: error,
      })
    }
    this.#lock = await lockDataDir(this.#dataDir)
    try {
      await endLeftover(files)
      await shorten(files.log)
      // Redis would make it readable for all.
      await writeFile(files.log, '', { flag: 'a', mode: 0o600 })
      await chmod(files.log, 0o600)
      await writeFile(files.config, embeddedConfig(files, this.#binary.majorVersion), { mode: 0o600 })
      await this.#run()
    } catch (error) {
      await this.stop()
      await this.#lock.release()
      throw error
    }
    return { socketPath: files.socket }
  }

  /** Stops Redis (20 s at most) and releases the data directory. May be called at any time, and again. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async #stop(): Promise<void> {
    clearTimeout(this.#restart)
    if (this.#child !== undefined) await endRedis(this.#child, this.#files)
    await this.#starting.catch(() => undefined)
    await rm(this.#files.socket, { force: true })
    if (this.#files.socketFolder !== this.#files.folder)
      await rm(this.#files.socketFolder, { recursive: true, force: true })
    await this.#lock?.release()
  }

  #run(): Promise<void> {
    if (this.#stopping !== undefined)
      return Promise.reject(new StartupError('Redis was stopped while it was starting.'))
    const child = launchRedis(this.#binary as RedisBinary, this.#files)
    const startedMs = Date.now()
    this.#child = child
    let hasAnswered = false
    child.once('exit', (code, signal) => {
      if (this.#child === child) this.#child = undefined
      // The first start reports its own failure; from then on Redis is restarted each time it ends.
      if (hasAnswered) this.#runAgain(Date.now() - startedMs, { code, signal })
    })
    this.#starting = untilAnswers(child, this.#files, this.#log).then(() => {
      hasAnswered = true
    })
    return this.#starting
  }

  #runAgain(ranMs: number, how: { code?: number | null; signal?: string | null; err?: unknown }): void {
    if (this.#stopping !== undefined) return
    this.#quickEnds = ranMs >= healthyAfterMs ? 0 : this.#quickEnds + 1
    const delayMs = this.#quickEnds <= 1 ? 0 : Math.min(100 * 2 ** (this.#quickEnds - 2), maxDelayMs)
    const disk = readDiskNow(this.#files.folder)
    const why =
      disk !== undefined && isDiskFull(disk)
        ? `: the disk under ${this.#dataDir} is full (${inWords(disk.freeBytes)} free); free some space there`
        : ''
    this.#log.error({ ...how, ranMs, delayMs }, `Redis ended by itself and is started again${why}`)
    this.#restart = setTimeout(() => void this.#bringBack(), delayMs)
  }

  async #bringBack(): Promise<void> {
    const startedMs = Date.now()
    try {
      await this.#run()
      this.#log.info({ tookMs: Date.now() - startedMs, pid: this.pid }, 'Redis runs again')
    } catch (error) {
      if (this.#child !== undefined) await endRedis(this.#child, this.#files)
      this.#runAgain(Date.now() - startedMs, { err: error })
    }
  }
}

/** Under the temporary directory others could have been there first: take no folder that is not ours alone. */
async function makePrivateFolder(folder: string): Promise<void> {
  await mkdir(folder, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  const found = await lstat(folder)
  if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o077) !== 0) {
    throw new StartupError(
      `${folder} is not a private folder of this user. Remove it, or use a shorter MUSTER_DATA_DIR.`,
    )
  }
}

async function shorten(logFile: string): Promise<void> {
  const size = await stat(logFile).then(
    found => found.size,
    () => 0,
  )
  if (size > maxLogBytes) await truncate(logFile)
}
