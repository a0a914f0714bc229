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
import { chmod, lstat, mkdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { resolve } from 'node:path'
import type { Logger } from 'pino'
import { inWords, isDiskFull, readDiskNow } from '../disk-space.ts'
import { StartupError } from '../errors.ts'
import { within } from '../within.ts'
import { type DataDirLock, lockDataDir } from './data-dir-lock.ts'
import { type EmbeddedFiles, embeddedConfig, embeddedFiles } from './embedded-config.ts'
import { findRedisBinary, type RedisBinary } from './redis-binary.ts'
import { keepRunning, launchServer, rotateLog, type ServerProcess } from './server-process.ts'
import { endLeftoverRedis, untilAnswers } from './until-answers.ts'

export interface EmbeddedOptions {
  readonly dataDir: string
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>
}

export class EmbeddedRedis {
  readonly #log: EmbeddedOptions['log']
  readonly #dataDir: string
  readonly #files: EmbeddedFiles
  readonly #stopping = new AbortController()
  #binary: RedisBinary | undefined
  #lock: DataDirLock | undefined
  #server: ServerProcess | undefined
  #running: Promise<unknown> = Promise.resolve()
  #stopped: Promise<void> | undefined

  constructor({ dataDir, log }: EmbeddedOptions) {
    this.#log = log
    this.#dataDir = resolve(dataDir)
    this.#files = embeddedFiles(this.#dataDir, tmpdir())
  }

  /** The process that runs now, if any. */
  get pid(): number | undefined {
    return this.#server?.hasEnded() ? undefined : this.#server?.pid
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
      await endLeftoverRedis(files)
      await rotateLog(files.log)
      // Redis would make it readable for all.
      await writeFile(files.log, '', { flag: 'a', mode: 0o600 })
      await chmod(files.log, 0o600)
      await writeFile(files.config, embeddedConfig(files, this.#binary.majorVersion), { mode: 0o600 })
      const first = this.#launch()
      this.#running = first.then(
        server => this.#keepRunning(server),
        () => undefined,
      )
      await first
    } catch (error) {
      await this.stop()
      await this.#lock.release()
      throw error
    }
    return { socketPath: files.socket }
  }

  /** Stops Redis (30 s at most) and releases the data directory. May be called at any time, and again. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<void> {
    this.#stopping.abort()
    await this.#server?.end()
    // Redis may hang in the kernel.
    await within(5000, 'The end of Redis', this.#running).catch(() => undefined)
    await rm(this.#files.socket, { force: true })
    if (this.#files.socketFolder !== this.#files.folder)
      await rm(this.#files.socketFolder, { recursive: true, force: true })
    await this.#lock?.release()
  }

  /** Returns when it answers. */
  async #launch(): Promise<ServerProcess> {
    if (this.#stopping.signal.aborted) throw new StartupError('Redis was stopped while it was starting.')
    const server = launchServer(this.#binary as RedisBinary, [this.#files.config])
    this.#server = server
    try {
      await untilAnswers(server, this.#files, this.#log)
    } catch (error) {
      await server.end()
      throw error
    }
    return server
  }

  async #keepRunning(first: ServerProcess): Promise<void> {
    await keepRunning({
      ...{ first, signal: this.#stopping.signal },
      launch: async () => {
        const startedMs = Date.now()
        const server = await this.#launch()
        this.#log.info({ tookMs: Date.now() - startedMs, pid: server.pid }, 'Redis runs again')
        return server
      },
      onEnd: how => {
        const disk = readDiskNow(this.#files.folder)
        const why =
          disk !== undefined && isDiskFull(disk)
            ? `: the disk under ${this.#dataDir} is full (${inWords(disk.freeBytes)} free); free some space there`
            : ''
        this.#log.error(how, `Redis ended by itself and is started again${why}`)
      },
    })
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
