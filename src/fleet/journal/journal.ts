/**
 * The journal: what every scaling decision saw and why it was taken, newest 1,000, in a Redis stream. An entry is written
 * before its actions are carried out, and holds the whole snapshot: `decide(inputs, at)` gives the same answer again.
 */

import { deflateSync, inflateSync } from 'node:zlib'
import { Problem } from '../../errors.ts'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import type { BootNews } from '../measure/boot-log.ts'
import { keys } from '../redis-keys.ts'
import type { Action, Decision, PoolSnapshot } from '../scaling/snapshot.ts'

/** Something that belonged to no instance any more was removed: no decision about a size, and journaled all the same. */
export interface Sweep {
  readonly kind: 'sweep'
  readonly leftoverIds: readonly string[]
  readonly reason: 'leftover'
}

export interface JournalEntry extends Omit<Decision, 'actions'> {
  /** `*` for what concerns no queue. */
  readonly queue: string
  /** In ms since the epoch. */
  readonly at: number
  readonly actions: readonly (Action | Sweep | BootNews)[]
  /** Whose turn it was; absent for manual actions. */
  readonly epoch?: number
  /** Under which id its launch goes; absent when it launches nothing. */
  readonly decisionId?: string
  /** By instance, what it said while it booted, at most 4 kB each: for those that never came up. */
  readonly bootDiagnostics?: Readonly<Record<string, string>>
  /** Absent for manual actions. */
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
const idPattern = /^\d{1,15}-\d{1,15}$/

/** KEYS: decisions. ARGV: how many are kept, entry. Returns its id. Runs when Redis is full, for it stays as long as it is. */
const append = new Script<string>(
  'append_decision',
  `return redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', 'entry', ARGV[2])`,
  { whenFull: true },
)

export class Journal {
  readonly #redis: RedisClient

  constructor(redis: RedisClient) {
    this.#redis = redis
  }

  /** @returns the id of the entry */
  async write({ inputs, ...entry }: JournalEntry): Promise<string> {
    const text = JSON.stringify({ ...entry, ...(inputs !== undefined && { inputs: packInputs(inputs) }) })
    return await append.run(this.#redis, [keys.decisions], [length, text])
  }

  /** One entry; undefined when there is none (any more). */
  async find(id: string): Promise<RecordedEntry | undefined> {
    if (!idPattern.test(id)) return undefined
    const [row] = await this.#redis.xrange(keys.decisions, id, id)
    return row === undefined ? undefined : toEntry(row)
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
    if (query.before !== undefined && !idPattern.test(query.before)) throw new Problem('cursor_invalid')
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
      for (const row of rows) {
        const entry = toEntry(row)
        if (query.queue === undefined || entry.queue === query.queue) found.push(entry)
      }
      before = rows.at(-1)?.[0]
      if (rows.length < chunk) break
    }
    const decisions = found.slice(0, query.limit)
    const last = decisions.at(-1)
    return found.length > query.limit && last !== undefined ? { decisions, nextBefore: last.id } : { decisions }
  }
}

function toEntry([id, [, text]]: [string, string[]]): RecordedEntry {
  const { inputs, ...entry } = JSON.parse(text ?? '') as Omit<JournalEntry, 'inputs'> & { inputs?: RecordedInputs }
  return { id, ...entry, ...(inputs !== undefined && { inputs: unpackInputs(inputs) }) }
}

/**
 * What a decision saw, as it is kept in Redis: plain while it is small, compressed above some kB, so that the journal of a
 * pool with hundreds of instances stays a few MB.
 */

/** Plain, or deflated and in base64. */
export type RecordedInputs = PoolSnapshot | { readonly deflated: string }

const plainLength = 4096

export function packInputs(inputs: PoolSnapshot): RecordedInputs {
  const text = JSON.stringify(inputs)
  return text.length <= plainLength ? inputs : { deflated: deflateSync(text).toString('base64') }
}

export function unpackInputs(recorded: RecordedInputs): PoolSnapshot {
  if (!('deflated' in recorded)) return recorded
  return JSON.parse(inflateSync(Buffer.from(recorded.deflated, 'base64')).toString()) as PoolSnapshot
}
