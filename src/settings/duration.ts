/** Times as people write them: 30s, 5m, 24h, 90d; a number alone is milliseconds. */
import ms from 'ms'

/** @returns milliseconds, or undefined when this is no duration with a unit */
export function durationMs(text: string): number | undefined {
  if (!/^\d{1,9}(\.\d+)?\s?[a-z]{1,12}$/i.test(text)) return undefined
  const value = ms(text as ms.StringValue)
  return value === undefined || !Number.isFinite(value) ? undefined : Math.round(value)
}
