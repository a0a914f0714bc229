/**
 * Payloads as files: `<root>/<two hex digits of the key's hash>/<key, with % for />`, written to `<root>/tmp` first.
 * A write that was answered survives a power loss: file and folder are synced.
 */
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { Problem } from '../errors.ts'
import { Meter } from './checked-stream.ts'
import { assertPayloadKey, type PayloadStore, type StoredPayload } from './payload-store.ts'

const abandonedAfterMs = 60 * 60_000
const deletesAtOnce = 16

export class FolderStore implements PayloadStore {
  readonly #root: string
  readonly #temporary: string

  constructor(root: string) {
    this.#root = root
    this.#temporary = join(root, 'tmp')
  }

  /**
   * Makes the folder, writes a file there, and removes what writes of an hour ago or earlier left half-done (a node was
   * killed).
   */
  async start(now = Date.now()): Promise<void> {
    await mkdir(this.#temporary, { recursive: true, mode: 0o700 })
    const trial = join(this.#temporary, randomUUID())
    await (await open(trial, 'wx', 0o600)).close()
    await rm(trial, { force: true })
    for (const name of await readdir(this.#temporary)) {
      const file = join(this.#temporary, name)
      const writtenMs = await modifiedMs(file)
      if (writtenMs !== undefined && writtenMs <= now - abandonedAfterMs) await rm(file, { force: true })
    }
  }

  async put(
    key: string,
    content: Readable | Buffer,
    { maxBytes }: { readonly maxBytes: number },
  ): Promise<StoredPayload> {
    const source = Buffer.isBuffer(content) ? Readable.from([content], { objectMode: false }) : content
    try {
      assertPayloadKey(key)
      return await this.#write(key, source, maxBytes)
    } catch (error) {
      throw isDiskFault(error) ? new Problem('payload_store_unavailable', undefined, { cause: error }) : error
    } finally {
      source.destroy()
    }
  }

  async get(key: string): Promise<{ stream: Readable; bytes: number } | undefined> {
    assertPayloadKey(key)
    const { file: path } = this.#place(key)
    const file = await absentAsUndefined(open(path, 'r'))
    if (file === undefined) return undefined
    try {
      const { size } = await file.stat()
      return { stream: file.createReadStream(), bytes: size }
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) assertPayloadKey(key)
    for (let from = 0; from < keys.length; from += deletesAtOnce) {
      await Promise.all(keys.slice(from, from + deletesAtOnce).map(key => rm(this.#place(key).file, { force: true })))
    }
  }

  async *list(olderThanMs: number, now: number): AsyncGenerator<string> {
    const shards = (await absentAsUndefined(readdir(this.#root))) ?? []
    for (const shard of shards.filter(name => /^[0-9a-f]{2}$/.test(name))) {
      for (const name of (await absentAsUndefined(readdir(join(this.#root, shard)))) ?? []) {
        const writtenMs = await modifiedMs(join(this.#root, shard, name))
        if (writtenMs !== undefined && writtenMs <= now - olderThanMs) yield name.replaceAll('%', '/')
      }
    }
  }

  async #write(key: string, source: Readable, maxBytes: number): Promise<StoredPayload> {
    const { shard, file } = this.#place(key)
    await mkdir(this.#temporary, { recursive: true, mode: 0o700 })
    const temporary = join(this.#temporary, randomUUID())
    try {
      const stored = await writeSynced(temporary, source, maxBytes)
      const isNewShard = (await mkdir(shard, { recursive: true, mode: 0o700 })) !== undefined
      await rename(temporary, file)
      await syncFolder(shard)
      if (isNewShard) await syncFolder(this.#root)
      return stored
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
  }

  #place(key: string): { shard: string; file: string } {
    const shard = join(this.#root, createHash('sha256').update(key).digest('hex').slice(0, 2))
    // % is not part of any key, so no two keys share a file.
    return { shard, file: join(shard, key.replaceAll('/', '%')) }
  }
}

async function writeSynced(path: string, source: Readable, maxBytes: number): Promise<StoredPayload> {
  const file = await open(path, 'wx', 0o600)
  try {
    const meter = new Meter()
    // On an open handle writeFile() writes on from where it is, and writes all.
    for await (const chunk of meter.through(source, maxBytes)) await file.writeFile(chunk)
    await file.sync()
    return meter.total()
  } finally {
    await file.close()
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** No room, or a shared folder that is away: no fault of the request. */
const diskFaults = new Set(['ENOSPC', 'EDQUOT', 'EIO', 'EROFS', 'ESTALE', 'ETIMEDOUT'])
const isDiskFault = (error: unknown): boolean =>
  (error as NodeJS.ErrnoException).syscall !== undefined && diskFaults.has((error as NodeJS.ErrnoException).code ?? '')

async function absentAsUndefined<T>(action: Promise<T>): Promise<T | undefined> {
  try {
    return await action
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

const modifiedMs = async (path: string): Promise<number | undefined> => (await absentAsUndefined(stat(path)))?.mtimeMs
