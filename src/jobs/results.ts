/**
 * Collecting results. A result is handed out to one holder at a time until it is acked:
 *
 *   uncollected ──pull──▶ leased ──ack──▶ acked (readable until it expires)
 *        ▲                  │
 *        └── lease ran out, or given back
 */
import type { Bell } from '../redis/bell.ts'
import { Script } from '../redis/script.ts'
import type { StoredContent } from './job-data.ts'
import type { JobQueue } from './job-queue.ts'

export interface PullOptions {
  /** Under which the results are held from now. Unique. */
  readonly leaseId: string
  /** At most this many results. */
  readonly top: number
  readonly leaseMs: number
  /** How long to wait for the first one. */
  readonly waitMs: number
  /** No more than about this much of inline values; the first result comes whatever its size. */
  readonly maxBytes: number
  readonly includeFailed: boolean
  /** Ends the wait: the client is gone. */
  readonly signal: AbortSignal
}

export interface PulledResult {
  readonly workId: string
  /** Exactly one of the two. */
  readonly value?: StoredContent
  readonly failure?: { readonly code: string; readonly message: string }
}

/** Results taken in one script run: some milliseconds, so that others get their turn. */
const chunk = 500
/** A ring can get lost; nobody waits longer than this for a look of their own. */
const lookAgainMs = 1000

/**
 * Takes the oldest finished results and leases them. Leases that ran out go back to their place first.
 * KEYS: uncollected, uncollectedDead, leased, leases. ARGV: prefix of job keys, now, top, end of lease, lease id,
 * "1" to include dead jobs, bytes allowed, bytes taken already.
 * Returns Work ID, "ok" or "dead", and the stored value or reason, in turn; last the bytes taken.
 */
const pull = new Script<string[]>(
  'pull',
  `local prefix, now, top = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local includeDead, allowed, taken = ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1000)) do
  local lease = redis.call('HGET', KEYS[4], id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('HDEL', KEYS[4], id)
  if lease then
    local kind, sequence = string.match(lease, '^%S+ (%S+) (%S+)$')
    redis.call('ZADD', kind == 'dead' and KEYS[2] or KEYS[1], sequence, id)
  end
end
local out = {}
local heads = { { key = KEYS[1], kind = 'ok', offset = 0, at = 1, list = {} } }
if includeDead then heads[2] = { key = KEYS[2], kind = 'dead', offset = 0, at = 1, list = {} } end
local function peek(head)
  if head.at > #head.list then
    if head.done then return nil end
    head.list = redis.call('ZRANGE', head.key, head.offset, head.offset + 199, 'WITHSCORES')
    head.at = 1
    if #head.list == 0 then head.done = true return nil end
  end
  return tonumber(head.list[head.at + 1])
end
while #out < top * 3 do
  local head, lowest
  for _, candidate in ipairs(heads) do
    local score = peek(candidate)
    if score and (not lowest or score < lowest) then head, lowest = candidate, score end
  end
  if not head then break end
  local id, sequence = head.list[head.at], head.list[head.at + 1]
  head.at = head.at + 2
  local job = redis.call('HMGET', prefix .. id, 'finishedOn', head.kind == 'ok' and 'returnvalue' or 'failedReason', 'name')
  if not job[3] then
    redis.call('ZREM', head.key, id)
  elseif not job[1] or not job[2] then
    head.offset = head.offset + 1
  else
    local size = #job[2]
    if taken > 0 and taken + size > allowed then break end
    taken = taken + math.max(size, 1)
    redis.call('ZREM', head.key, id)
    redis.call('ZADD', KEYS[3], ARGV[4], id)
    redis.call('HSET', KEYS[4], id, ARGV[5] .. ' ' .. head.kind .. ' ' .. sequence)
    out[#out + 1] = id
    out[#out + 1] = head.kind
    out[#out + 1] = job[2]
  end
end
out[#out + 1] = tostring(taken)
return out`,
)

/**
 * Ends leases. KEYS: uncollected, uncollectedDead, leased, leases. ARGV: "ack", "release" or "extend", the lease id or
 * "*" for any, end of the lease (extend), then Work IDs. Returns those that were held.
 */
const settle = new Script<string[]>(
  'settle',
  `local held = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local lease = redis.call('HGET', KEYS[4], id)
  local owner, kind, sequence = string.match(lease or '', '^(%S+) (%S+) (%S+)$')
  if owner and (ARGV[2] == '*' or owner == ARGV[2]) then
    held[#held + 1] = id
    if ARGV[1] == 'extend' then
      redis.call('ZADD', KEYS[3], ARGV[3], id)
    else
      redis.call('ZREM', KEYS[3], id)
      redis.call('HDEL', KEYS[4], id)
      if ARGV[1] == 'release' then redis.call('ZADD', kind == 'dead' and KEYS[2] or KEYS[1], sequence, id) end
    end
  end
end
return held`,
)

export class Results {
  readonly #queue: JobQueue
  readonly #bell: Bell

  constructor(queue: JobQueue, bell: Bell) {
    this.#queue = queue
    this.#bell = bell
  }

  /** The oldest results, leased under the lease id given; none when none came in time. */
  async pull(options: PullOptions): Promise<PulledResult[]> {
    const deadline = Date.now() + options.waitMs
    for (;;) {
      // Listening starts before the look, so that what comes between the two is not missed.
      const rung = this.#ring(Math.min(lookAgainMs, deadline - Date.now()), options.signal)
      const results = await this.#take(options).catch(error => {
        rung.cancel()
        throw error
      })
      if (results.length > 0 || Date.now() >= deadline || options.signal.aborted) {
        rung.cancel()
        return results
      }
      await rung.promise
    }
  }

  /** @returns the Work IDs that were held under this lease ("*": any) and are now acked */
  async ack(leaseId: string, workIds: readonly string[]): Promise<string[]> {
    return await this.#settle('ack', leaseId, workIds, 0)
  }

  /** Hands results back; they are pulled again, in their old place. */
  async release(leaseId: string, workIds: readonly string[]): Promise<string[]> {
    const held = await this.#settle('release', leaseId, workIds, 0)
    if (held.length > 0) this.#bell.ring(`results:${this.#queue.name}`)
    return held
  }

  async extend(leaseId: string, workIds: readonly string[], leaseMs: number): Promise<void> {
    await this.#settle('extend', leaseId, workIds, Date.now() + leaseMs)
  }

  /** Work IDs under a lease, from its id alone. */
  async heldUnder(leaseId: string): Promise<string[]> {
    const leases = await this.#queue.redis.hgetall(this.#queue.keys.leases)
    return Object.entries(leases)
      .filter(([, lease]) => lease.startsWith(`${leaseId} `))
      .map(([workId]) => workId)
  }

  async #take(options: PullOptions): Promise<PulledResult[]> {
    const results: PulledResult[] = []
    let bytes = 0
    while (results.length < options.top) {
      const now = Date.now()
      const wanted = Math.min(chunk, options.top - results.length)
      const reply = await pull.run(this.#queue.redis, this.#keys(), [
        this.#queue.bullPrefix,
        now,
        wanted,
        now + options.leaseMs,
        options.leaseId,
        options.includeFailed ? '1' : '0',
        options.maxBytes,
        bytes,
      ])
      bytes = Number(reply.pop())
      for (let at = 0; at < reply.length; at += 3) {
        results.push(toResult(reply[at] as string, reply[at + 1] as string, reply[at + 2] as string))
      }
      if (reply.length < wanted * 3) break
    }
    return results
  }

  async #settle(
    verb: 'ack' | 'release' | 'extend',
    leaseId: string,
    workIds: readonly string[],
    until: number,
  ): Promise<string[]> {
    const held: string[] = []
    for (let at = 0; at < workIds.length; at += chunk) {
      held.push(
        ...(await settle.run(this.#queue.redis, this.#keys(), [
          verb,
          leaseId,
          until,
          ...workIds.slice(at, at + chunk),
        ])),
      )
    }
    return held
  }

  #keys(): string[] {
    const { uncollected, uncollectedDead, leased, leases } = this.#queue.keys
    return [uncollected, uncollectedDead, leased, leases]
  }

  #ring(ms: number, signal: AbortSignal): { promise: Promise<void>; cancel: () => void } {
    let cancel = (): void => undefined
    const promise = new Promise<void>(resolve => {
      const off = this.#bell.on(`results:${this.#queue.name}`, () => cancel())
      const timer = setTimeout(() => cancel(), Math.max(0, ms))
      cancel = () => {
        off()
        clearTimeout(timer)
        signal.removeEventListener('abort', cancel)
        resolve()
      }
      signal.addEventListener('abort', cancel)
    })
    return { promise, cancel: () => cancel() }
  }
}

function toResult(workId: string, kind: string, text: string): PulledResult {
  if (kind === 'dead') return { workId, failure: parseFailure(text) }
  return { workId, value: JSON.parse(text) as StoredContent }
}

/** A failed attempt's reason stands in BullMQ as "code: message". */
export function parseFailure(text: string): { code: string; message: string } {
  const match = /^([a-z][a-z0-9_]*): ([\s\S]*)$/.exec(text)
  return match === null ? { code: 'failed', message: text } : { code: match[1] as string, message: match[2] as string }
}
