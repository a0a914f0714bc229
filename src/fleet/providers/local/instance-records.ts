/**
 * The records of local instances on disk, `<folder>/<id>.json` beside `<id>.log`, so that a node that was killed finds
 * its workers again. Records and logs of instances that have ended are kept for the newest 20.
 */
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

export interface InstanceRecord {
  readonly id: string
  readonly pool: string
  readonly slots: number
  readonly decisionId: string
  readonly launchedAt: number
  readonly pid: number
  /** See process-identity. */
  readonly identity: string
  /** When it was told to end. */
  terminatingAt?: number
  endedAt?: number
  /** Exit code or signal; absent when nobody saw it end. */
  endedWith?: number | string
}

const keptCount = 20

export class InstanceRecords {
  readonly #folder: string

  /** Makes the folder when it is missing. Others may not read it: logs can hold anything. */
  constructor(folder: string) {
    this.#folder = folder
    this.ensureFolder()
  }

  logFile(id: string): string {
    return join(this.#folder, `${id}.log`)
  }

  /** The end of its log; undefined when there is none, or nothing in it. */
  readLogTail(id: string, maxBytes: number): string | undefined {
    let file: number
    try {
      file = openSync(this.logFile(id), 'r')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
    try {
      const { size } = fstatSync(file)
      const tail = Buffer.alloc(Math.min(size, maxBytes))
      const count = readSync(file, tail, 0, tail.length, size - tail.length)
      return count === 0 ? undefined : tail.toString('utf8', 0, count)
    } finally {
      closeSync(file)
    }
  }

  /** All that can be read. A record that is broken is no record. */
  readAll(): InstanceRecord[] {
    return readdirSync(this.#folder)
      .filter(name => name.endsWith('.json'))
      .flatMap(name => this.#read(name))
  }

  /** Makes the folder anew when it vanished, so that logs and records have a place. */
  ensureFolder(): void {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
  }

  /**
   * Blocks until it is written: between the launch of a process and its record lies nothing else.
   * @throws when the disk is full or away; the record of before stands, and nothing half-written is left
   */
  write(record: InstanceRecord): void {
    const file = this.#file(record.id)
    try {
      writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 })
      renameSync(`${file}.new`, file)
    } catch (error) {
      rmSync(`${file}.new`, { force: true })
      throw error
    }
  }

  /** Removes record and log of a launch that came to nothing. */
  remove(id: string): void {
    rmSync(this.#file(id), { force: true })
    rmSync(this.logFile(id), { force: true })
  }

  /** Removes records and logs of the ended instances, but for the newest. Returns the records that stay. */
  prune(records: readonly InstanceRecord[]): InstanceRecord[] {
    const ended = records
      .filter(({ endedAt }) => endedAt !== undefined)
      .sort((a, b) => (b.endedAt ?? 0) - (a.endedAt ?? 0))
    const dropped = new Set(ended.slice(keptCount))
    for (const { id } of dropped) this.remove(id)
    return records.filter(record => !dropped.has(record))
  }

  #file(id: string): string {
    return join(this.#folder, `${id}.json`)
  }

  #read(name: string): InstanceRecord[] {
    try {
      const record = JSON.parse(readFileSync(join(this.#folder, name), 'utf8')) as InstanceRecord
      return typeof record.id === 'string' && Number.isInteger(record.pid) && record.pid > 1 ? [record] : []
    } catch {
      return []
    }
  }
}
