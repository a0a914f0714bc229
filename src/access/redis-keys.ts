/** The Redis keys of access. Only nodes (and who administers them) reach Redis: these keys are internal. */
import { globalKey } from '../redis/keys.ts'

export const keys = {
  /** Hash: by id, an API key as JSON, its secret hashed. */
  apiKeys: globalKey('access:keys'),
  /** String: the secrets that sign worker tokens, newest first, as JSON. */
  signing: globalKey('access:signing'),
  /** String: the secret that Work IDs of Idempotency-Keys are made with, hex; made once and never changed. */
  deployment: globalKey('access:deployment'),
  /** Sorted set: ids of instances that have ended, by when; their tokens are dead. */
  ended: globalKey('access:ended'),
  /** Stream: the audit log. */
  audit: globalKey('access:audit'),
} as const

/** String: the hash of the word that an instance showed when it joined first. */
export const joinKey = (instanceId: string): string => globalKey(`access:joined:${instanceId}`)

/** Notification when any of them changed: nodes read them anew. */
export const topic = 'access'
