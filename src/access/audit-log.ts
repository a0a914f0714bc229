/** What operators did, in Redis: the newest 10,000 actions. No secret is ever part of an entry. */
import type { RedisClient } from '../redis/connect/connection.ts'
import { Script } from '../redis/script.ts'
import { keys } from './redis-keys.ts'

export interface AuditEntry {
  /** In ms since the epoch. */
  readonly at: number
  readonly who: { readonly kind: string; readonly id: string; readonly name: string }
  /** Where the request came from; absent for who acted on Redis itself. */
  readonly ip?: string
  /** Like `queue.pause`. */
  readonly action: string
  /** What it was done to: a queue, a Work ID, an instance, a key. */
  readonly target: string
  /** The HTTP status of the reply. */
  readonly status: number
  readonly requestId?: string
  readonly details?: Readonly<Record<string, unknown>>
}

export interface AuditPage {
  readonly entries: readonly (AuditEntry & { readonly id: string })[]
  readonly nextBefore: string | undefined
}

const kept = 10_000
const idPattern = /^\d{1,15}-\d{1,15}$/

/** KEYS: log. ARGV: how many to keep, the entry. Also in a full Redis: what was done there is not to be hidden. */
const append = new Script<string>(
  'appendAudit',
  `return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'entry', ARGV[2])`,
  { whenFull: true },
)

export class AuditLog {
  readonly #redis: RedisClient

  constructor(redis: RedisClient) {
    this.#redis = redis
  }

  /** @throws what Redis says */
  async write(entry: AuditEntry): Promise<void> {
    await append.run(this.#redis, [keys.audit], [kept, JSON.stringify(entry)])
  }

  /**
   * Newest first.
   * @param before the id of an entry: only those before it
   * @returns undefined when `before` is no id
   */
  async read({ limit, before }: { readonly limit: number; readonly before?: string }): Promise<AuditPage | undefined> {
    if (before !== undefined && !idPattern.test(before)) return undefined
    const rows = await this.#redis.xrevrange(keys.audit, before === undefined ? '+' : `(${before}`, '-', 'COUNT', limit)
    const entries = rows.map(([id, [, json = '{}']]) => ({ id, ...(JSON.parse(json) as AuditEntry) }))
    return { entries, nextBefore: entries.length < limit ? undefined : entries.at(-1)?.id }
  }
}
