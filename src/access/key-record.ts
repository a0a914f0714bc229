/** A key as it stands in Redis, and how a secret is held against it. */
import { timingSafeEqual } from 'node:crypto'
import { hashOf, noHash } from './api-key.ts'
import type { Role } from './roles.ts'

export interface KeyRecord {
  readonly id: string
  readonly name: string
  readonly roles: readonly Role[]
  /** The queues that it is bound to; absent: all. */
  readonly queues?: readonly string[]
  /** Times are in ms since the epoch. */
  readonly createdAt: number
  readonly rotatedAt?: number
  readonly expiresAt?: number
  /** SHA-256 of the secret. */
  readonly hash: Buffer
  /** The secret before the last rotation: good until then. */
  readonly previous?: { readonly hash: Buffer; readonly until: number }
}

/** What may be shown: all but the hashes. */
export type KeyView = Omit<KeyRecord, 'hash' | 'previous'> & { readonly previousUntil?: number }

export type Verdict = 'good' | 'wrong' | 'expired'

/**
 * Holds a secret against a key. The comparison takes the same time for any secret, and for a key that does not exist.
 * @param now ms since the epoch
 */
export function judge(record: KeyRecord | undefined, secret: string, now: number): Verdict {
  const hash = hashOf(secret)
  const isCurrent = timingSafeEqual(hash, record?.hash ?? noHash)
  const isPrevious = timingSafeEqual(hash, record?.previous?.hash ?? noHash)
  if (record === undefined) return 'wrong'
  if (!isCurrent && !(isPrevious && now < (record.previous?.until ?? 0))) return 'wrong'
  return now < (record.expiresAt ?? Number.POSITIVE_INFINITY) ? 'good' : 'expired'
}

export function viewOf({ hash: _, previous, ...record }: KeyRecord, now: number): KeyView {
  return { ...record, ...(previous !== undefined && previous.until > now && { previousUntil: previous.until }) }
}

interface StoredKey extends Omit<KeyRecord, 'id' | 'hash' | 'previous'> {
  readonly hash: string
  readonly previous?: { readonly hash: string; readonly until: number }
}

export function toJson({ id: _, hash, previous, ...record }: KeyRecord): string {
  const stored: StoredKey = {
    ...record,
    hash: hash.toString('base64url'),
    ...(previous !== undefined && { previous: { ...previous, hash: previous.hash.toString('base64url') } }),
  }
  return JSON.stringify(stored)
}

/** @returns undefined for what no version of ours has written: it lets nobody in */
export function fromJson(id: string, json: string): KeyRecord | undefined {
  try {
    const { hash, previous, ...record } = JSON.parse(json) as StoredKey
    const bytes = Buffer.from(hash, 'base64url')
    if (bytes.length !== noHash.length || !Array.isArray(record.roles)) return undefined
    const before = previous && { until: previous.until, hash: Buffer.from(previous.hash, 'base64url') }
    return {
      ...record,
      id,
      hash: bytes,
      ...(before?.hash.length === noHash.length && { previous: before }),
    }
  } catch {
    return undefined
  }
}
