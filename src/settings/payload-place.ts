/** What MUSTER_PAYLOAD_STORE may say, read into a place; what it is when nobody says; and what does not go with it. */
import { resolve } from 'node:path'
import { parseRedisUrl } from './redis-url.ts'

export type PayloadPlace =
  /** `path` is shared by all nodes; without it the folder is the node's own, in its data directory. */
  | { readonly kind: 'folder'; readonly path: string | undefined }
  | { readonly kind: 'redis' }
  /** `prefix` is empty or ends with a slash. */
  | { readonly kind: 's3'; readonly bucket: string; readonly prefix: string }

interface PayloadSettings {
  readonly payloadStore: string
  readonly maxBodyBytes: number
  readonly awsRegion: string
}

const mebibyte = 1024 * 1024

/** A payload in Redis is memory on three machines, and blocks replication while it passes. */
export const maxBytesInRedis = 64 * mebibyte

const bucketPattern = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/
/** Under it every payload key is an S3 key that needs no encoding and leads nowhere else. */
const prefixPattern = /^[A-Za-z0-9._~-]+(?:\/[A-Za-z0-9._~-]+)*$/
const longestPrefix = 200

/** @throws Error whose message completes "MUSTER_PAYLOAD_STORE …" */
export function parsePayloadPlace(text: string): PayloadPlace {
  if (text === 'folder') return { kind: 'folder', path: undefined }
  if (text === 'redis') return { kind: 'redis' }
  if (text.startsWith('folder:/') && !text.startsWith('folder://'))
    return { kind: 'folder', path: resolve(text.slice('folder:'.length)) }
  if (text.startsWith('s3://')) return parseS3(text.slice('s3://'.length))
  throw new Error('must be folder, folder:/path/shared/by/all/nodes, redis, or s3://bucket/prefix')
}

/** The setting stays as it was written, so that it can be shown; whoever opens the store parses it again. */
export function payloadStore(text: string): string {
  parsePayloadPlace(text)
  return text
}

function parseS3(text: string): PayloadPlace {
  const [bucket = '', ...rest] = text.split('/')
  const prefix = rest.join('/').replace(/\/$/, '')
  if (!bucketPattern.test(bucket) || bucket.includes('..'))
    throw new Error('must name a bucket: s3://bucket or s3://bucket/prefix')
  if (prefix !== '' && (!prefixPattern.test(prefix) || prefix.includes('..') || prefix.length > longestPrefix))
    throw new Error(
      `must have a prefix of letters, digits and . _ ~ - with slashes between, at most ${longestPrefix} long`,
    )
  return { kind: 's3', bucket, prefix: prefix === '' ? '' : `${prefix}/` }
}

/**
 * Several nodes share a Redis with Sentinels or a Cluster, so they must share the payloads; one node needs no more than
 * a folder.
 */
export function defaultPayloadStore(redisUrl: unknown): string {
  // Undefined when it cannot be read, which is reported elsewhere.
  if (typeof redisUrl !== 'string' || redisUrl === '') return 'folder'
  return parseRedisUrl(redisUrl).kind === 'single' ? 'folder' : 'redis'
}

export const defaultMaxBodyBytes = (payloadStore: unknown): number =>
  payloadStore === 'redis' ? maxBytesInRedis : 1024 * mebibyte

/** @returns sentences that say what to mend */
export function validatePayloads({ payloadStore, maxBodyBytes, awsRegion }: PayloadSettings): string[] {
  const { kind } = parsePayloadPlace(payloadStore)
  const faults: string[] = []
  if (kind === 'redis' && maxBodyBytes > maxBytesInRedis)
    faults.push(
      `MUSTER_MAX_BODY_BYTES is ${maxBodyBytes}, but payloads are kept in Redis, which takes ${maxBytesInRedis} at most: lower it, or set MUSTER_PAYLOAD_STORE to s3://bucket or to a folder that all nodes share`,
    )
  if (kind === 's3' && awsRegion === '')
    faults.push('AWS_REGION must be set with MUSTER_PAYLOAD_STORE=s3://…: the region of the bucket')
  return faults
}
