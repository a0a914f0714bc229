/** Values of jobs: what is expected of them, what came, and whether the two are the same. Pure. */
import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'

export type Value = { readonly json: unknown } | { readonly bytes: number; readonly sha256: string }

/** `sleptMs` is a measured time: at least what was asked for. `version`: see Versions, which knows which. */
export type Expected = Value | { readonly sleptMs: number } | { readonly version: 'deployed then' }

export const jsonValue = (json: unknown): Value => ({ json })

export const bytesValue = (bytes: Uint8Array): Value => ({
  bytes: bytes.length,
  sha256: createHash('sha256').update(bytes).digest('hex'),
})

export function isValue(value: Value, expected: Expected): boolean {
  if ('version' in expected) return 'json' in value && typeof value.json === 'number'
  if (!('sleptMs' in expected)) return isDeepStrictEqual(value, expected)
  const sleptMs = 'json' in value ? (value.json as { sleptMs?: unknown } | null)?.sleptMs : undefined
  return typeof sleptMs === 'number' && sleptMs >= expected.sleptMs
}

export function describeValue(value: Expected): string {
  const text = JSON.stringify(value) ?? 'undefined'
  return text.length > 200 ? `${text.slice(0, 200)}… (${text.length} characters)` : text
}

/** SHA-512, applied so many times. */
export function hashChain(data: Uint8Array, iterations: number): string {
  let digest = createHash('sha512').update(data).digest()
  for (let done = 1; done < iterations; done += 1) digest = createHash('sha512').update(digest).digest()
  return digest.toString('hex')
}

/** How many primes there are below a number, and the largest; by trial division, unlike the handler. */
export function primesBelow(below: number): { count: number; largest: number | null } {
  const primes: number[] = []
  for (let candidate = 2; candidate < below; candidate += 1) {
    let isPrime = true
    for (const prime of primes) {
      if (prime * prime > candidate) break
      if (candidate % prime === 0) {
        isPrime = false
        break
      }
    }
    if (isPrime) primes.push(candidate)
  }
  return { count: primes.length, largest: primes.at(-1) ?? null }
}

/** The bytes that the handler `d.large` returns for a start value; it has the same few lines. */
export function largeBytes(length: number, start: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0, value = start; at < length; at += 1) {
    value = (Math.imul(value, 1103515245) + 12345) & 0x7fffffff
    bytes[at] = value >> 16
  }
  return bytes
}
