/** Chance that can be repeated: the same seed gives the same numbers (mulberry32). */
export interface Random {
  readonly seed: number
  /** From 0 up to, but not including, `below`. */
  int(below: number): number
  pick<T>(items: readonly T[]): T
}

/** @param seed of an earlier run, from MUSTER_TEST_SEED; else a new one */
export function random(seed = Number(process.env.MUSTER_TEST_SEED) || Math.floor(Math.random() * 2 ** 31)): Random {
  let state = seed
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (below: number): number => Math.floor(next() * below)
  return { seed, int, pick: items => items[int(items.length)] as (typeof items)[number] }
}
