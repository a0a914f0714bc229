/** "Did you mean …?": the known name that is closest to one that is not known. */
import { closest, distance } from 'fastest-levenshtein'

/** @returns undefined when nothing known is close: more than a third of the letters differ */
export function nearest(name: string, known: readonly string[]): string | undefined {
  if (known.length === 0) return undefined
  const byLetters = new Map(known.map(candidate => [candidate.toLowerCase(), candidate]))
  const found = closest(name.toLowerCase(), [...byLetters.keys()])
  return distance(name.toLowerCase(), found) <= Math.max(1, Math.floor(found.length / 3))
    ? byLetters.get(found)
    : undefined
}

/** `; did you mean "x"?`, or nothing. */
export function didYouMean(name: string, known: readonly string[]): string {
  const found = nearest(name, known)
  return found === undefined ? '' : `; did you mean "${found}"?`
}
