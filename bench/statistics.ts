/** Figures of several rounds, and of many samples. */

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** @throws RangeError when there are none */
export function spreadOf(values: readonly number[]): Spread {
  return { median: percentile(values, 50), min: percentile(values, 0), max: percentile(values, 100) }
}

/**
 * @param percent from 0 (the least) to 100 (the greatest); between two values it lies on the line between them
 * @throws RangeError when there are none
 */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const position = ((sorted.length - 1) * percent) / 100
  const below = sorted[Math.floor(position)]
  const above = sorted[Math.ceil(position)]
  if (below === undefined || above === undefined) throw new RangeError('There are no values')
  return below + (above - below) * (position - Math.floor(position))
}

/** Of each pair the first in parts of the second: both were measured next to each other, so drifts cancel out. */
export const ratiosOf = (pairs: readonly (readonly [number, number])[]): number[] => pairs.map(([a, b]) => a / b)
