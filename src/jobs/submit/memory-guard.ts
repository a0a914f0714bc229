/**
 * Room in Redis and on the disk. New work ends while there is enough of both for the jobs at hand to be finished,
 * collected and taken away; those go on to the last byte. Looked at each second; what was let in since is counted on
 * top. A Redis without `maxmemory` has no such limit to look at.
 */

import { resolve } from 'node:path'
import type { Logger } from 'pino'
import { type DiskSpace, defaultReserveBytes, inWords, isDiskFull, readDisk } from '../../disk-space.ts'
import { Problem } from '../../errors.ts'
import { Loop } from '../../loop.ts'
import { type RedisClient, serversOf } from '../../redis/connect/connection.ts'
import { type MemoryInfo, readInfo } from '../../redis/inspect/info.ts'
import { parsePayloadPlace } from '../../settings/payload-place.ts'
import type { Settings } from '../../settings/settings.ts'
import { ReserveFile } from './reserve-file.ts'

/** Above this share of maxmemory nothing new is taken. */
const fullShare = 0.9
/** A job without its payload: its hash, its place in line, its result. */
const jobBytes = 1024
const lookEveryMs = 1000

export interface RoomOptions {
  readonly redis: RedisClient
  readonly log: Logger
  /** Where a file is kept in reserve; left out: nowhere. */
  readonly dataDir?: string
  /** Those on whose disks jobs and payloads lie; left out: none is looked at. */
  readonly folders?: readonly string[]
  /** What is kept free of each disk; undefined: see defaultReserveBytes. */
  readonly reserveBytes?: number | undefined
}

/** The bytes of a job that is about to be taken, where they will lie. */
export interface Arrival {
  readonly memoryBytes: number
  readonly diskBytes: number
}

const noMemory: MemoryInfo = { used: 0, counted: 0, limit: 0, system: 0 }

interface Disk extends DiskSpace {
  readonly folder: string
  readonly keptBytes: number
}

export class MemoryGuard {
  readonly loop: Loop
  readonly #options: RoomOptions
  readonly #reserve: ReserveFile | undefined
  #memory = noMemory
  #disks: readonly Disk[] = []
  #arrived: Arrival = { memoryBytes: 0, diskBytes: 0 }

  constructor(options: RoomOptions) {
    this.#options = options
    this.#reserve = options.dataDir === undefined ? undefined : new ReserveFile(options.dataDir)
    this.loop = new Loop({
      name: 'look at memory and disk',
      intervalMs: lookEveryMs,
      run: () => this.#look(),
      log: options.log,
    })
  }

  /**
   * To be asked before anything of the job is kept; what was let in counts until the next look.
   * @throws Problem overloaded
   */
  admit({ memoryBytes, diskBytes }: Arrival = { memoryBytes: 0, diskBytes: 0 }): void {
    const arrived = {
      memoryBytes: this.#arrived.memoryBytes + jobBytes + memoryBytes,
      diskBytes: this.#arrived.diskBytes + jobBytes + diskBytes,
    }
    const why = this.#whyFull(arrived)
    if (why !== undefined) throw new Problem('overloaded', why, { retryAfterMs: 10_000 })
    this.#arrived = arrived
  }

  /** Why no new work is taken now, and what to do; undefined when it is. */
  overload(): string | undefined {
    return this.#whyFull(this.#arrived)
  }

  /** Why Redis may fail to write, when the disk that it writes to is full. */
  diskFault(): string | undefined {
    const full = this.#disks.find(isDiskFull)
    return full && `The disk under ${full.folder} is full (${inWords(full.freeBytes)} free). Free some space there.`
  }

  #whyFull({ memoryBytes, diskBytes }: Arrival): string | undefined {
    const { counted: usedBytes, limit: limitBytes } = this.#memory
    if (limitBytes > 0 && usedBytes + memoryBytes >= fullShare * limitBytes)
      return `Memory: Redis uses ${inWords(usedBytes)} of its limit of ${inWords(limitBytes)}. Finished jobs still have room: collect or cancel some, start workers, or give Redis more memory.`
    const short = this.#disks.find(({ freeBytes, keptBytes }) => freeBytes - diskBytes < keptBytes)
    return (
      short &&
      `Disk: ${inWords(Math.max(0, short.freeBytes - diskBytes))} are free under ${short.folder} (what was just let in counts), and ${inWords(short.keptBytes)} are kept for the jobs at hand. Finished jobs still have room: free some space there, collect or cancel some, or set MUSTER_DISK_RESERVE_MB.`
    )
  }

  /** The disk is looked at also while Redis is away: it may be the reason. */
  async #look(): Promise<void> {
    const arrived = this.#arrived
    const [disks, memory] = await Promise.allSettled([this.#lookAtDisks(), this.#lookAtMemory()])
    // What came meanwhile is in none of the figures.
    this.#arrived = {
      memoryBytes: this.#arrived.memoryBytes - arrived.memoryBytes,
      diskBytes: this.#arrived.diskBytes - arrived.diskBytes,
    }
    for (const look of [disks, memory]) if (look.status === 'rejected') throw look.reason
  }

  async #lookAtMemory(): Promise<void> {
    const found = await Promise.all(
      serversOf(this.#options.redis).map(async server => readInfo(await server.info('memory')).memory),
    )
    // Of a Cluster the fullest server counts: any of them may hold the next job.
    const fullness = ({ counted, limit }: MemoryInfo): number => (limit === 0 ? 0 : counted / limit)
    this.#memory = found.reduce((fullest, one) => (fullness(one) > fullness(fullest) ? one : fullest), noMemory)
  }

  async #lookAtDisks(): Promise<void> {
    const { folders = [], reserveBytes, log, dataDir } = this.#options
    const found = await Promise.all(
      folders.map(async (folder): Promise<Disk[]> => {
        const space = await readDisk(folder)
        return space === undefined
          ? []
          : [{ ...space, folder, keptBytes: reserveBytes ?? defaultReserveBytes(space.totalBytes) }]
      }),
    )
    this.#disks = found.flat()
    const own = this.#disks.find(({ folder }) => folder === dataDir)
    const done = own && (await this.#reserve?.keep(own, own.keptBytes))
    if (done === 'given up')
      log.error({ dataDir, freeBytes: own?.freeBytes }, 'the disk is full: the reserve was given up')
  }
}

/** Where the bytes of jobs lie on this machine, as the settings say, and how many of one job lie where. */
type Places = Pick<RoomOptions, 'dataDir' | 'folders' | 'reserveBytes'>

/** The data directory is looked at in any case: beside a node there may be a Redis of its own replication group. */
export function placesOf(settings: Pick<Settings, 'dataDir' | 'redisUrl' | 'payloadStore' | 'diskReserveMb'>): Places {
  const { redisUrl, diskReserveMb } = settings
  const place = parsePayloadPlace(settings.payloadStore)
  const dataDir = resolve(settings.dataDir)
  const isWritten = redisUrl === '' || (place.kind === 'folder' && place.path === undefined)
  return {
    folders: place.kind === 'folder' && place.path !== undefined ? [dataDir, place.path] : [dataDir],
    reserveBytes: diskReserveMb === 'auto' ? undefined : diskReserveMb * 1024 * 1024,
    ...(isWritten && { dataDir }),
  }
}

/** @param bytes how large the body is that brings the payload, as far as that is known */
export function arrivalOf(settings: Pick<Settings, 'inlineBytes' | 'payloadStore'>, bytes: number): Arrival {
  const isInline = bytes <= 2 * settings.inlineBytes
  const { kind } = parsePayloadPlace(settings.payloadStore)
  return {
    memoryBytes: isInline || kind === 'redis' ? bytes : 0,
    // In Redis it is written to the append-only file.
    diskBytes: isInline || kind !== 's3' ? bytes : 0,
  }
}
