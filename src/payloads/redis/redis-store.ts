/**
 * Payloads in Redis, in chunks, for nodes that share nothing else. A blob is acknowledged as jobs are: when it is to be
 * replicated, a second server has all of it before put() resolves.
 *
 *   chunks, with a time to live ──all of them there──▶ pointer and index entry in one step, time to live taken away
 *        └── the node dies: they go by themselves
 *   deleted or replaced: the pointer goes, the chunks stay for a while for those who read them
 */
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { nanoid } from 'nanoid'
import { Problem } from '../../errors.ts'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { isRedisAway, isRedisFull, NotDurableError } from '../../redis/redis-errors.ts'
import type { DurableWrites } from '../../redis/writes/durable-writes.ts'
import { Meter } from '../checked-stream.ts'
import { assertPayloadKey, type PayloadStore, type StoredPayload } from '../payload-store.ts'
import {
  type BlobPointer,
  type BlobShard,
  blobShardOf,
  blobShards,
  forget,
  keepUpload,
  parsePointer,
  printPointer,
  publish,
} from './blob-scripts.ts'

export interface RedisStoreOptions {
  /** For the bytes: a connection of its own, so that no claim waits behind a chunk. */
  readonly redis: RedisClient
  readonly writes: DurableWrites
  readonly clock?: () => number
}

/** A chunk takes Redis a fraction of a millisecond: nobody else waits for long. */
const chunkBytes = 512 * 1024
/** After so many chunks the replicas must have them, or the buffers of the primary would fill. */
const chunksAhead = 8
const uploadTtlMs = 3_600_000
const trashTtlMs = 600_000
const listedAtOnce = 500
const forgottenAtOnce = 100

export class RedisStore implements PayloadStore {
  readonly #redis: RedisClient
  readonly #writes: DurableWrites
  readonly #clock: () => number

  constructor({ redis, writes, clock = Date.now }: RedisStoreOptions) {
    this.#redis = redis
    this.#writes = writes
    this.#clock = clock
  }

  async put(
    key: string,
    content: Readable | Buffer,
    { maxBytes }: { readonly maxBytes: number },
  ): Promise<StoredPayload> {
    const source = Buffer.isBuffer(content) ? Readable.from([content], { objectMode: false }) : content
    const version = nanoid()
    const shard = blobShardOf(key)
    try {
      assertPayloadKey(key)
      const meter = new Meter()
      const chunkCount = await this.#send(shard.chunks + version, meter.through(source, maxBytes))
      const stored = meter.total()
      await this.#publish(shard, key, { version, chunkCount, bytes: stored.bytes })
      return stored
    } finally {
      source.destroy()
    }
  }

  async get(key: string): Promise<{ stream: Readable; bytes: number } | undefined> {
    assertPayloadKey(key)
    const shard = blobShardOf(key)
    const found = await patiently(() => this.#redis.hget(shard.pointers, key))
    if (found === null) return undefined
    const pointer = parsePointer(found)
    const stream = Readable.from(this.#read(shard, pointer), { objectMode: false, highWaterMark: chunkBytes })
    return { stream, bytes: pointer.bytes }
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) assertPayloadKey(key)
    for (const shard of blobShards) {
      const here = keys.filter(key => blobShardOf(key) === shard)
      for (let from = 0; from < here.length; from += forgottenAtOnce) {
        const some = here.slice(from, from + forgottenAtOnce)
        const { pointers, index, chunks } = shard
        await patiently(() => forget.run(this.#redis, [pointers, index], [chunks, trashTtlMs, ...some]))
      }
    }
  }

  async *list(olderThanMs: number, now: number): AsyncGenerator<string> {
    for (const { index } of blobShards) {
      for (let offset = 0; ; offset += listedAtOnce) {
        const keys = await patiently(() =>
          this.#redis.zrangebyscore(index, '-inf', now - olderThanMs, 'LIMIT', offset, listedAtOnce),
        )
        yield* keys
        if (keys.length < listedAtOnce) break
      }
    }
  }

  /** @returns how many chunks; after an error there are none */
  async #send(chunks: string, content: AsyncIterable<Uint8Array>): Promise<number> {
    let count = 0
    try {
      for await (const chunk of cut(content)) {
        const field = String(count)
        await patiently(() => settled(this.#redis.pipeline().hset(chunks, field, chunk).pexpire(chunks, uploadTtlMs)))
        count += 1
        if (count % chunksAhead === 0) await patiently(() => this.#writes.run(keepUpload, [chunks], [uploadTtlMs]))
      }
      return count
    } catch (error) {
      if (count > 0) await this.#redis.unlink(chunks).catch(() => undefined)
      throw error
    }
  }

  /**
   * After an error it may be published or not: who reads it finds it whole, and the sweep finds that nobody owns it.
   */
  async #publish({ pointers, index, chunks }: BlobShard, key: string, pointer: BlobPointer): Promise<void> {
    const { version, chunkCount } = pointer
    const keys = [pointers, index, chunks + version]
    const args = [key, printPointer(pointer), chunkCount, this.#clock(), chunks, trashTtlMs]
    const isWhole = await patiently(() => this.#writes.run(publish, keys, args))
    if (isWhole !== 1)
      throw new Problem('redis_unavailable', 'The primary of Redis was switched while the payload came in.')
  }

  async *#read({ chunks }: BlobShard, { version, chunkCount }: BlobPointer): AsyncGenerator<Buffer> {
    for (let at = 0; at < chunkCount; at += 1) yield await patiently(() => this.#chunk(chunks + version, at))
  }

  /** A blob that was deleted meanwhile stays for as long as it is read. */
  async #chunk(chunks: string, at: number): Promise<Buffer> {
    const replies = await settled(this.#redis.pipeline().hgetBuffer(chunks, String(at)).pttl(chunks))
    const [chunk, ttlMs] = replies as [Buffer | null, number]
    if (chunk === null) throw new Error(`Chunk ${at} of a payload is gone (${chunks})`)
    if (ttlMs >= 0 && ttlMs < trashTtlMs / 2) await this.#redis.pexpire(chunks, trashTtlMs)
    return chunk
  }
}

interface Executable {
  exec(): Promise<[error: Error | null, result: unknown][] | null>
}

/** The replies of a pipeline. @throws the first error among them */
async function settled(pipeline: Executable): Promise<unknown[]> {
  const replies = (await pipeline.exec()) ?? []
  for (const [error] of replies) if (error !== null) throw error
  return replies.map(([, value]) => value)
}

/** The same bytes in pieces of one size; the last one may be smaller. */
async function* cut(content: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let collected: Uint8Array[] = []
  let bytes = 0
  for await (const piece of content) {
    for (let from = 0; from < piece.byteLength; ) {
      const part = piece.subarray(from, from + chunkBytes - bytes)
      collected.push(part)
      bytes += part.byteLength
      from += part.byteLength
      if (bytes < chunkBytes) continue
      yield Buffer.concat(collected, bytes)
      collected = []
      bytes = 0
    }
  }
  if (bytes > 0) yield Buffer.concat(collected, bytes)
}

/**
 * Repeats what Redis was away for: a failover is over in seconds, and a payload that is half sent cannot be sent again.
 */
const patienceMs = 10_000
const backoffMs = (tries: number): number => (0.5 + Math.random()) * Math.min(50 * 2 ** tries, 800)

/**
 * Each try is bounded by the time limit of its connection.
 * @param action may happen several times
 * @throws Problem redis_unavailable when Redis stays away, overloaded when it is full; whatever else the action throws
 */
export async function patiently<T>(action: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + patienceMs
  for (let tries = 1; ; tries += 1) {
    try {
      return await action()
    } catch (error) {
      if (isRedisFull(error))
        throw new Problem('overloaded', 'Redis has no room for the payload.', { cause: error, retryAfterMs: 10_000 })
      if (!isRedisAway(error)) throw error
      const pauseMs = backoffMs(tries)
      if (performance.now() + pauseMs > deadline) throw away(error)
      await delay(pauseMs)
    }
  }
}

const away = (cause: unknown): Problem =>
  new Problem('redis_unavailable', cause instanceof NotDurableError ? cause.message : undefined, { cause })
