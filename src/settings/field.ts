/** One setting: what it means, what it is when it is not given, and how its text is read. */
import { isIP } from 'node:net'
import ms from 'ms'
import { didYouMean } from './nearest.ts'
import { parseRedisUrl } from './redis-url.ts'

export interface Field<T> {
  readonly help: string
  /** May depend on the settings above it. */
  readonly fallback: Fallback
  /** Throws an Error whose message completes "NAME …". */
  readonly parse: (text: string) => T
  readonly secret?: true
  /** Another variable that is read when this one is unset. */
  readonly also?: string
  /** The variable, when it is a standard one and not MUSTER_…. */
  readonly variable?: string
}

type Fallback = string | ((above: Readonly<Record<string, unknown>>) => string)

/** Describes one setting. */
export const field = <T>(
  parse: (text: string) => T,
  fallback: Fallback | number,
  help: string,
  extra: { secret?: true; also?: string; variable?: string } = {},
): Field<T> => ({ help, parse, fallback: typeof fallback === 'number' ? String(fallback) : fallback, ...extra })

/** What a setting is when it is not given, as text. */
export const fallbackOf = ({ fallback }: Field<unknown>, above: Readonly<Record<string, unknown>>): string =>
  typeof fallback === 'function' ? fallback(above) : fallback

/**
 * Reads one value; a time (its key ends with Ms) may have a unit: 30s, 5m, 24h.
 * @throws Error whose message completes "NAME …"
 */
export function parseField(key: string, { parse }: Field<unknown>, given: string): unknown {
  if (!key.endsWith('Ms')) return parse(given)
  try {
    return parse(String(durationMs(given) ?? given))
  } catch (error) {
    throw new Error(`${(error as Error).message} (milliseconds), or a time like 30s, 5m or 24h`)
  }
}

/** Parsers of single settings: text in, value out. Each throws an Error whose message completes "NAME …". */
export const text = (text: string): string => text

export const integer =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text)
    if (!/^-?\d+$/.test(text) || value < min || value > max)
      throw new Error(`must be a whole number from ${min} to ${max}`)
    return value
  }

export const autoOr =
  <T>(parse: (text: string) => T) =>
  (text: string): T | 'auto' =>
    text === 'auto' ? text : parse(text)

export const oneOf =
  <T extends string>(...values: readonly T[]) =>
  (text: string): T => {
    const found = values.find(value => value === text)
    if (found === undefined) throw new Error(`must be one of ${values.join(', ')}${didYouMean(text, values)}`)
    return found
  }

export const list = (text: string): string[] =>
  text
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '')

export const redisUrl = (text: string): string => {
  if (text !== '') parseRedisUrl(text)
  return text
}

export const urls = (text: string): string[] => {
  const all = list(text)
  for (const url of all)
    if (!/^https?:\/\/[^/]/.test(url))
      throw new Error(`must be URLs like http://127.0.0.1:5000, separated by commas, not "${url}"`)
  return all.map(url => url.replace(/\/+$/, ''))
}

/** Empty, or a digest. */
export const sha256 = (text: string): string => {
  if (!/^(?:[0-9a-f]{64})?$/i.test(text)) throw new Error('must be a SHA-256 in hex: 64 digits')
  return text.toLowerCase()
}

/** '' or one URL, without a slash at its end. */
export const optionalUrl = (text: string): string => {
  if (text !== '' && !/^https?:\/\/[^/]/.test(text)) throw new Error('must be a URL like https://host/path')
  return text.replace(/\/+$/, '')
}

/** IP addresses and networks (CIDR). */
export const addresses = (text: string): string[] => {
  const all = list(text)
  for (const one of all) {
    const [address = '', bits, ...more] = one.split('/')
    const version = isIP(address)
    const most = version === 4 ? 32 : 128
    const isRight =
      version !== 0 && more.length === 0 && (bits === undefined || (/^\d{1,3}$/.test(bits) && +bits <= most))
    if (!isRight) throw new Error(`must be addresses or networks like 10.0.0.0/16, separated by commas, not "${one}"`)
  }
  return all
}

/** A word that may stand in names, tags and hashes. */
export const word = (text: string): string => {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/.test(text)) throw new Error('must be 1 to 63 of A-Z, a-z, 0-9, - and _')
  return text
}

/** Times as people write them: 30s, 5m, 24h, 90d; a number alone is milliseconds. */

/** @returns milliseconds, or undefined when this is no duration with a unit */
export function durationMs(text: string): number | undefined {
  if (!/^\d{1,9}(\.\d+)?\s?[a-z]{1,12}$/i.test(text)) return undefined
  const value = ms(text as ms.StringValue)
  return value === undefined || !Number.isFinite(value) ? undefined : Math.round(value)
}
