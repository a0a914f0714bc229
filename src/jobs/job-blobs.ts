/**
 * The blobs that jobs refer to: payload, value and checkpoint, as far as they are not inline. They go with their jobs.
 */
import type { Logger } from 'pino'
import type { PayloadStore } from '../payloads/payload-store.ts'
import { Script } from '../redis/script.ts'
import type { JobQueue } from './bullmq/job-queue.ts'
import type { StoredContent } from './job-data.ts'

/**
 * KEYS: none that is written; the first names the slot. ARGV: prefix of job keys, then Work IDs. Returns for each data,
 * value and checkpoint, each an empty string unless it may be a reference: those are short.
 */
const references = new Script<string[]>(
  'blob_references',
  `local out = {}
for i = 2, #ARGV do
  for _, field in ipairs(redis.call('HMGET', ARGV[1] .. ARGV[i], 'data', 'returnvalue', 'checkpoint')) do
    out[#out + 1] = field and #field < 4096 and string.find(field, '"blob":{', 1, true) and field or ''
  end
end
return out`,
)

/** To be asked before the jobs are removed. @returns keys of blobs, by Work ID */
export async function blobsOf(queue: JobQueue, workIds: readonly string[]): Promise<Map<string, string[]>> {
  const fields = await references.run(queue.redis, [queue.bull.toKey('meta')], [queue.bullPrefix, ...workIds])
  return new Map(
    workIds.map((workId, index) => {
      const [data = '', value = '', checkpoint = ''] = fields.slice(3 * index, 3 * index + 3)
      const contents = [parse<{ payload?: StoredContent }>(data)?.payload, parse(value), parse(checkpoint)]
      const keys = contents.flatMap(content => content?.blob?.key ?? [])
      return [workId, keys.filter(key => key.startsWith(`${workId}/`))]
    }),
  )
}

/** Never fails: what cannot be deleted now is found by the sweep. */
export async function deleteBlobs(store: PayloadStore, keys: readonly string[], log: Logger): Promise<void> {
  if (keys.length === 0) return
  try {
    await store.delete(keys)
  } catch (error) {
    log.warn({ err: error, count: keys.length }, 'blobs of jobs that are gone could not be deleted; the sweep will')
  }
}

function parse<T = StoredContent>(text: string): T | undefined {
  return text === '' ? undefined : (JSON.parse(text) as T | undefined)
}
