/**
 * API keys: `muster_<id>_<secret>`. The id is public and names the key in lists and in the audit log; the secret has
 * 190 bits and is never kept, only its SHA-256. A slow hash protects passwords, which people choose and machines guess.
 * Nobody can try a noticeable part of 190 random bits, and every request would pay for a slow hash.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { customAlphabet } from 'nanoid'
import type { Role } from './roles.ts'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const newId = customAlphabet(alphabet, 10)
const newSecret = customAlphabet(alphabet, 32)
const pattern = /^muster_([0-9A-Za-z]{10})_([0-9A-Za-z]{32})$/

/**
 * A name is shown in lists and logs: something to be seen, no control characters, none that break lines or turn the
 * direction of the text.
 */
export const keyNamePattern = /^(?=.*\S)[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]{1,100}$/u

export interface KeyParts {
  readonly id: string
  readonly secret: string
}

/** @param id of a key that is rotated; a new one when left out */
export const newKey = (id = newId()): KeyParts => ({ id, secret: newSecret() })

export const keyText = ({ id, secret }: KeyParts): string => `muster_${id}_${secret}`

/** @returns undefined when the text is no API key */
export function parseKey(text: string): KeyParts | undefined {
  const [, id, secret] = pattern.exec(text) ?? []
  return id === undefined || secret === undefined ? undefined : { id, secret }
}

export const hashOf = (secret: string): Buffer => createHash('sha256').update(secret).digest()

/** In constant time, whatever the texts are: their hashes have one length. */
export const isSame = (secret: string, other: string): boolean => timingSafeEqual(hashOf(secret), hashOf(other))

/** Of no secret: what the unknown is compared with, so that it takes as long as the known. */
export const noHash: Buffer = Buffer.alloc(32)

/** A key as it stands in Redis, and how a secret is held against it. */
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
