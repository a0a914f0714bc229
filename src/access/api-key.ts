/**
 * API keys: `muster_<id>_<secret>`. The id is public and names the key in lists and in the audit log; the secret has 190
 * bits and is never kept, only its SHA-256. A slow hash protects passwords, which people choose and machines guess. Nobody
 * can try a noticeable part of 190 random bits, and every request would pay for a slow hash.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { customAlphabet } from 'nanoid'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const newId = customAlphabet(alphabet, 10)
const newSecret = customAlphabet(alphabet, 32)
const pattern = /^muster_([0-9A-Za-z]{10})_([0-9A-Za-z]{32})$/

/** A name is shown in lists and logs: something to be seen, no control characters, none that break lines or turn the direction of the text. */
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
