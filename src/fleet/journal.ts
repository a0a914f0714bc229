/**
 * The journal: what every scaling decision saw and why it was taken, newest 1,000, in a Redis stream. An entry is written
 * before its actions are carried out, and holds the whole snapshot: `decide(inputs, at)` gives the same answer again.
 */
import type { Redis } from 'ioredis'
import { Problem } from '../errors.ts'
import { keys } from './keys.ts'
import type { Decision, PoolSnapshot } from './snapshot.ts'

export interface JournalEntry extends Decision {
  readonly queue: string
  /** In ms since the epoch. */
  readonly at: number
  /** Whose turn it was; absent for what somebody asked for by hand. */
  readonly epoch?: number
  /** Absent for what somebody asked for by hand. */
  readonly inputs?: PoolSnapshot
}

export interface RecordedEntry extends JournalEntry {
  readonly id: string
}

export interface JournalPage {
  readonly decisions: readonly RecordedEntry[]
  /** Pass it as `before` to go on; absent at the end. */
  readonly nextBefore?: string
}

const length = 1000
const chunk = 100

export class Journal {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** @returns the id of the entry */
  async write(entry: JournalEntry): Promise<string> {
    const id = await this.#redis.xadd(keys.decisions, 'MAXLEN', length, '*', 'entry', JSON.stringify(entry))
    return id ?? ''
  }

  /**
   * Newest first.
   * @param query.before only entries older than the one with this id
   * @throws Problem cursor_invalid
   */
  async read(query: {
    readonly limit: number
    readonly before?: string
    readonly queue?: string
  }): Promise<JournalPage> {
    if (query.before !== undefined && !/^\d{1,15}-\d{1,15}$/.test(query.before)) throw new Problem('cursor_invalid')
    const found: RecordedEntry[] = []
    let before = query.before
    while (found.length <= query.limit) {
      const rows = await this.#redis.xrevrange(
        keys.decisions,
        before === undefined ? '+' : `(${before}`,
        '-',
        'COUNT',
        chunk,
      )
      for (const [id, [, text]] of rows) {
        const entry = JSON.parse(text ?? '') as JournalEntry
        if (query.queue === undefined || entry.queue === query.queue) found.push({ id, ...entry })
      }
      before = rows.at(-1)?.[0]
      if (rows.length < chunk) break
    }
    const decisions = found.slice(0, query.limit)
    const last = decisions.at(-1)
    return found.length > query.limit && last !== undefined ? { decisions, nextBefore: last.id } : { decisions }
  }
}
