/**
 * Where blobs stand in Redis: spread over sixteen shards, all keys of a shard under one hash tag, so that a script may touch
 * them on a Redis Cluster, and blobs are shared out among its servers.
 *
 *   {muster:blob:<shard>}:pointers           hash: payload key → "<version> <chunks> <bytes>"
 *   {muster:blob:<shard>}:index              zset: payload key by when it was written
 *   {muster:blob:<shard>}:chunks:<version>   hash: number of the chunk → bytes
 *   {muster:blob:<shard>}:mark               see redis/replication-mark
 */
import { createHash } from 'node:crypto'

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
