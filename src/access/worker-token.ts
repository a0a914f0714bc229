/**
 * Worker tokens: `mwt.<claims>.<signature>`, short-lived, bound to an instance and its queue, and from the first
 * heartbeat on to one worker. Signed with HMAC-SHA-256 under a secret that all nodes share: any of them verifies a
 * token without a look-up.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { RedisClient } from '../redis/connect/connection.ts'
import { Script } from '../redis/script.ts'
import { keys } from './redis-keys.ts'

export interface WorkerClaims {
  readonly instanceId: string
  readonly queue: string
  /**
   * Left out in the first token of an instance, which is good for its first heartbeat and for the code of the worker.
   */
  readonly workerId?: string
  /** In ms since the epoch. */
  readonly expiresAt: number
}

export interface SigningSecret {
  readonly id: string
  readonly secret: Buffer
  /** In ms since the epoch; absent for the one that signs. */
  readonly goodUntil?: number
}

const prefix = 'mwt.'
const longest = 1024

export const isWorkerToken = (text: string): boolean => text.startsWith(prefix)

export function signToken(
  { instanceId, queue, workerId, expiresAt }: WorkerClaims,
  { id, secret }: SigningSecret,
): string {
  const claims = JSON.stringify([id, instanceId, queue, expiresAt, ...(workerId === undefined ? [] : [workerId])])
  const signed = prefix + Buffer.from(claims).toString('base64url')
  return `${signed}.${macOf(signed, secret).toString('base64url')}`
}

export type TokenVerdict =
  | { readonly verdict: 'good'; readonly claims: WorkerClaims }
  | { readonly verdict: 'wrong' | 'expired' }
  /** Signed by a secret that is not (or not yet) known here. */
  | { readonly verdict: 'unknown-secret' }

/** @param now ms since the epoch */
export function verifyToken(text: string, secrets: readonly SigningSecret[], now: number): TokenVerdict {
  const end = text.lastIndexOf('.')
  if (text.length > longest || end <= prefix.length) return { verdict: 'wrong' }
  const signed = text.slice(0, end)
  const fields = readFields(signed.slice(prefix.length))
  if (fields === undefined) return { verdict: 'wrong' }
  const [id, instanceId, queue, expiresAt, workerId] = fields
  const found = secrets.find(secret => secret.id === id)
  if (found === undefined) return { verdict: 'unknown-secret' }
  const mac = readBase64url(text.slice(end + 1))
  const expected = macOf(signed, found.secret)
  if (mac?.length !== expected.length || !timingSafeEqual(mac, expected)) return { verdict: 'wrong' }
  if (now >= expiresAt || now >= (found.goodUntil ?? Number.POSITIVE_INFINITY)) return { verdict: 'expired' }
  return {
    verdict: 'good',
    claims: { instanceId, queue, expiresAt, ...(workerId !== undefined && { workerId }) },
  }
}

const macOf = (signed: string, secret: Buffer): Buffer => createHmac('sha256', secret).update(signed).digest()

/** A text has one form only: what Buffer would overlook (padding, other alphabets, stray bits) is none of ours. */
function readBase64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}

type Fields = [id: string, instanceId: string, queue: string, expiresAt: number, workerId?: string]

/** Nothing of it is believed before the signature was verified, but which secret to verify it with. */
function readFields(claims: string): Fields | undefined {
  try {
    const fields = JSON.parse(readBase64url(claims)?.toString() ?? '') as unknown
    if (!Array.isArray(fields)) return undefined
    const [id, instanceId, queue, expiresAt, workerId] = fields as unknown[]
    const texts = [id, instanceId, queue, workerId ?? '']
    return texts.every(text => typeof text === 'string') && typeof expiresAt === 'number'
      ? (fields as Fields)
      : undefined
  } catch {
    return undefined
  }
}

/** The secrets that sign worker tokens, in Redis: made once by whichever node is first, rotated on demand. */

/** The id under which `keys rotate` means these. */
export const workersKeyId = 'workers'

interface StoredSecret {
  readonly id: string
  readonly secret: string
  readonly goodUntil?: number
}

/** KEYS: signing. ARGV: the first list. */
const ensureScript = new Script<string | null>('ensureSigning', `return redis.call('SET', KEYS[1], ARGV[1], 'NX')`, {
  whenFull: true,
})

/**
 * KEYS: signing. ARGV: the list as it was, the new one. Returns whether it was still so. Also in a full Redis: it ends
 * tokens.
 */
const replaceScript = new Script<number>(
  'replaceSigning',
  `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1`,
  { whenFull: true },
)

/** Makes the first secret where there is none. Calling it again, on any node, is harmless. */
export async function ensureSigningSecret(redis: RedisClient): Promise<void> {
  await ensureScript.run(redis, [keys.signing], [print([newSecret()])])
}

/** Newest first: the first one signs. */
export function parseSigningSecrets(json: string | null): SigningSecret[] {
  if (json === null) return []
  return (JSON.parse(json) as StoredSecret[]).map(({ secret, ...rest }) => ({
    ...rest,
    secret: Buffer.from(secret, 'base64url'),
  }))
}

/**
 * From now on a new secret signs.
 * @param graceMs how long tokens of the one before stay good
 * @param now ms since the epoch
 * @returns false when somebody else has rotated meanwhile: that will do
 */
export async function rotateSigningSecret(redis: RedisClient, graceMs: number, now: number): Promise<boolean> {
  await ensureSigningSecret(redis)
  const before = (await redis.get(keys.signing)) ?? ''
  const old = parseSigningSecrets(before)
    .map((secret, index) => (index === 0 ? { ...secret, goodUntil: now + graceMs } : secret))
    .filter(({ goodUntil = 0 }) => goodUntil > now)
  return (await replaceScript.run(redis, [keys.signing], [before, print([newSecret(), ...old])])) === 1
}

const newSecret = (): SigningSecret => ({ id: randomBytes(6).toString('base64url'), secret: randomBytes(32) })

const print = (secrets: readonly SigningSecret[]): string =>
  JSON.stringify(secrets.map(({ secret, ...rest }) => ({ ...rest, secret: secret.toString('base64url') })))
