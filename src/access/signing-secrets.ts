/** The secrets that sign worker tokens, in Redis: made once by whichever node is first, rotated on demand. */
import { randomBytes } from 'node:crypto'
import type { RedisClient } from '../redis/connection.ts'
import { Script } from '../redis/script.ts'
import { keys } from './keys.ts'
import type { SigningSecret } from './worker-token.ts'

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

/** KEYS: signing. ARGV: the list as it was, the new one. Returns whether it was still so. Also in a full Redis: it ends tokens. */
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
