/**
 * Checkpoints: what an attempt leaves for the next one, whoever runs it. The newest stands in the job's own hash
 * (`checkpoint`, JSON); bytes over the inline limit go to the payload store, each upload under a key of its own, so
 * that none is ever overwritten while somebody reads it. Kept over retries and returns, dropped when the job has
 * succeeded.
 */
import type { Readable } from 'node:stream'
import type { Logger } from 'pino'
import type { PayloadStore } from '../../payloads/payload-store.ts'
import { spool } from '../../payloads/spool.ts'
import { Script } from '../../redis/script.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import { checkpointKey, type StoredContent } from '../job-data.ts'

/**
 * Records a checkpoint if the token holds the job. KEYS: job, lock. ARGV: token, checkpoint.
 * Returns the one before, an empty string for none, or nil when the token does not hold.
 */
const record = new Script<string | null>(
  'record_checkpoint',
  `if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
local before = redis.call('HGET', KEYS[1], 'checkpoint')
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[2])
return before or ''`,
)

/** Takes the checkpoint of a job away. KEYS: job. Returns it, or an empty string. */
const take = new Script<string>(
  'take_checkpoint',
  `local checkpoint = redis.call('HGET', KEYS[1], 'checkpoint')
redis.call('HDEL', KEYS[1], 'checkpoint')
return checkpoint or ''`,
)

export interface CheckpointLimits {
  readonly inlineBytes: number
  readonly maxBodyBytes: number
}

export class Checkpoints {
  readonly #queue: JobQueue
  readonly #store: PayloadStore
  readonly #limits: CheckpointLimits
  readonly #log: Logger

  constructor(queue: JobQueue, store: PayloadStore, limits: CheckpointLimits, log: Logger) {
    this.#queue = queue
    this.#store = store
    this.#limits = limits
    this.#log = log
  }

  /**
   * Keeps bytes in place of the checkpoint before, if the token holds the job all the while.
   * @returns how many bytes, or undefined when the lease is gone
   * @throws PayloadTooLargeError
   */
  async keep(workId: string, token: string, source: Readable): Promise<number | undefined> {
    const { inlineBytes, maxBodyBytes: maxBytes } = this.#limits
    const spooled = await spool(source, { inlineBytes, maxBytes, store: this.#store, key: checkpointKey(workId) })
    const content: StoredContent =
      'inline' in spooled
        ? { base64: spooled.inline.toString('base64') }
        : { blob: { ...spooled.blob, kind: 'bytes' } satisfies StoredContent['blob'] }
    const job = this.#queue.jobKey(workId)
    // The blob before goes for good, so the new one must not be forgotten by a failover.
    const before = await this.#queue.writes.run(record, [job, `${job}:lock`], [token, JSON.stringify(content)])
    // Not when Redis did not answer: it may have been recorded. Then the sweep of blobs finds what nobody owns.
    await this.#forget(before === null ? content : parseCheckpoint(before))
    if (before === null) return undefined
    return 'inline' in spooled ? spooled.inline.byteLength : spooled.blob.bytes
  }

  /** Drops the checkpoint of a job that has succeeded. Never throws: what is left goes when the job is forgotten. */
  async drop(workId: string): Promise<void> {
    try {
      await this.#forget(parseCheckpoint(await take.run(this.#queue.redis, [this.#queue.jobKey(workId)])))
    } catch (error) {
      this.#log.warn({ err: error, workId }, 'the checkpoint of a job that succeeded could not be dropped')
    }
  }

  async read(workId: string): Promise<StoredContent | undefined> {
    return parseCheckpoint(await this.#queue.redis.hget(this.#queue.jobKey(workId), 'checkpoint'))
  }

  async #forget(content: StoredContent | undefined): Promise<void> {
    if (content?.blob === undefined) return
    try {
      await this.#store.delete([content.blob.key])
    } catch (error) {
      this.#log.warn({ err: error, key: content.blob.key }, 'an old checkpoint could not be deleted')
    }
  }
}

export const parseCheckpoint = (text: string | null | undefined): StoredContent | undefined =>
  text === null || text === undefined || text === '' ? undefined : (JSON.parse(text) as StoredContent)
