/** Random numbers from a seed: the same seed gives the same numbers on every machine. */
import { createHash } from 'node:crypto'

export class Random {
  readonly #seed: string
  #state: number

  constructor(seed: string) {
    this.#seed = seed
    this.#state = createHash('sha256').update(seed).digest().readUInt32LE(0)
  }

  /** A stream of its own: what one move draws does not shift what the next one gets. */
  fork(label: string | number): Random {
    return new Random(`${this.#seed}/${label}`)
  }

  /** From 0 to below 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }

  /** A whole number, both ends included. */
  int(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1))
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new Error('nothing to pick from')
    return list[Math.floor(this.next() * list.length)] as T
  }

  weighted<T extends { readonly weight: number }>(list: readonly T[]): T {
    let left = this.next() * list.reduce((sum, { weight }) => sum + weight, 0)
    for (const item of list) {
      left -= item.weight
      if (left < 0) return item
    }
    return list.at(-1) as T
  }

  /** Bytes that are cheap to make and hold every value; also those that no text has. */
  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length)
    let at = 0
    for (; at + 4 <= length; at += 4) bytes.writeUInt32LE(this.int(0, 0xffffffff), at)
    for (; at < length; at += 1) bytes[at] = this.int(0, 255)
    return bytes
  }
}
