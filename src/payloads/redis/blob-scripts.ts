/** What must happen to a blob in one step. */

import { createHash } from 'node:crypto'
import { Script } from '../../redis/script.ts'

/**
 * Makes a blob readable whose chunks are all there. KEYS: pointers, index, chunks. ARGV: payload key, pointer, how many
 * chunks, now, prefix of chunks, how long an earlier version stays for those who read it.
 * Returns 1, or 0 when chunks are missing: a new primary does not have what its predecessor did not pass on. Twice is
 * once.
 */
export const publish = new Script<number>(
  'publish_blob',
  `local before = redis.call('HGET', KEYS[1], ARGV[1])
if before == ARGV[2] then return 1 end
if redis.call('HLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return 0 end
redis.call('PERSIST', KEYS[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
if before then redis.call('PEXPIRE', ARGV[5] .. string.match(before, '^%S+'), ARGV[6]) end
return 1`,
)

/**
 * Forgets blobs of one shard. KEYS: pointers, index. ARGV: prefix of chunks, how long the bytes stay for those who read
 * them, payload key… Returns how many there were.
 */
export const forget = new Script<number>(
  'forget_blobs',
  `local count = 0
for i = 3, #ARGV do
  local pointer = redis.call('HGET', KEYS[1], ARGV[i])
  if pointer then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('PEXPIRE', ARGV[1] .. string.match(pointer, '^%S+'), ARGV[2])
    count = count + 1
  end
end
return count`,
)

/**
 * Keeps the chunks of an upload that is under way. KEYS: chunks. ARGV: for how long. As a write that is waited for, it
 * holds the sender back until the replicas have what was sent so far.
 */
export const keepUpload = new Script<number>('keep_blob_upload', `return redis.call('PEXPIRE', KEYS[1], ARGV[1])`)

/**
 * Where blobs stand in Redis: spread over sixteen shards, all keys of a shard under one hash tag, so that a script may
 * touch them on a Redis Cluster, and blobs are shared out among its servers.
 *
 *   {muster:blob:<shard>}:pointers           hash: payload key → "<version> <chunks> <bytes>"
 *   {muster:blob:<shard>}:index              zset: payload key by when it was written
 *   {muster:blob:<shard>}:chunks:<version>   hash: number of the chunk → bytes
 *   {muster:blob:<shard>}:marker             see redis/writes/replication-marker
 */
export interface BlobShard {
  readonly pointers: string
  readonly index: string
  /** With a version behind it, the chunks of a blob. */
  readonly chunks: string
}

/** One state of a blob. A key that is written again points to a new version; who reads the old one is not disturbed. */
export interface BlobPointer {
  readonly version: string
  readonly chunkCount: number
  readonly bytes: number
}

const shardOf = (name: string): BlobShard => {
  const tag = `{muster:blob:${name}}`
  return { pointers: `${tag}:pointers`, index: `${tag}:index`, chunks: `${tag}:chunks:` }
}

export const blobShards: readonly BlobShard[] = [...'0123456789abcdef'].map(shardOf)

/** The shard of a payload key, always the same. */
export const blobShardOf = (key: string): BlobShard =>
  blobShards[(createHash('sha256').update(key).digest()[0] as number) % blobShards.length] as BlobShard

export const printPointer = ({ version, chunkCount, bytes }: BlobPointer): string => `${version} ${chunkCount} ${bytes}`

export function parsePointer(text: string): BlobPointer {
  const [version = '', chunkCount, bytes] = text.split(' ')
  return { version, chunkCount: Number(chunkCount), bytes: Number(bytes) }
}
