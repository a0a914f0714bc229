/** One setting: what it means, what it is when it is not given, and how its text is read. */
import { durationMs } from './duration.ts'

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
