/**
 * Workers that were lost under a job, apart from its failures: the evidence stands in the job's own hash (`lost`,
 * JSON), so that it goes with the job. From two on the job runs alone, from maxLostLeases on it is dead.
 *
 *   running ──lease ran out, or the worker is gone──▶ noted ──a later heartbeat of that worker──▶ taken back
 *
 * A worker that is heard of again was not lost: Redis or the nodes were away, or its process stood still.
 * Each loss is judged once: `judged` holds the number of the start (BullMQ's `ats`) that was judged last.
 * A job that is to run alone is only blamed for what it was alone with: as long as it waits in a worker beside others,
 * the loss of that worker is not counted for it.
 */
import { Script } from '../../redis/script.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'

export interface LostWorker {
  readonly workerId: string
  /** ms since the epoch */
  readonly at: number
  readonly reason: 'lease ran out' | 'worker lost'
}

/** After this many lost workers a job runs alone. */
export const exclusiveAfterCount = 2
/** What a worker lost is remembered for this long, in case it is heard of again. */
const rememberMs = 24 * 3_600_000

/**
 * KEYS: active. ARGV: prefix of job keys, prefix of the sets "lost by a worker", now, reason, when alone, how long to
 * remember, then Work ID and token in turn: those that are still held so; none: all whose lease has run out.
 * Returns how many were noted.
 */
const note = new Script<number>(
  'note_lost_workers',
  `local prefix, lostBy, now, reason = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local active = redis.call('LRANGE', KEYS[1], 0, -1)
local ids = {}
if #ARGV > 6 then
  for i = 7, #ARGV, 2 do
    if redis.call('GET', prefix .. ARGV[i] .. ':lock') == ARGV[i + 1] then ids[#ids + 1] = ARGV[i] end
  end
else
  for _, id in ipairs(active) do
    if redis.call('EXISTS', prefix .. id .. ':lock') == 0 then ids[#ids + 1] = id end
  end
end
local function hadCompany(worker, self)
  for _, id in ipairs(redis.call('SMEMBERS', lostBy .. worker)) do
    if id ~= self then return true end
  end
  for _, id in ipairs(active) do
    if id ~= self and redis.call('HGET', prefix .. id, 'pb') == worker then return true end
  end
  return false
end
local count = 0
for _, id in ipairs(ids) do
  local job = prefix .. id
  local fields = redis.call('HMGET', job, 'ats', 'judged', 'pb', 'lost')
  local start, judged, worker = fields[1], fields[2], fields[3]
  if start and worker and start ~= judged then
    local lost = fields[4] and cjson.decode(fields[4]) or {}
    redis.call('HSET', job, 'judged', start)
    if #lost < tonumber(ARGV[5]) or not hadCompany(worker, id) then
      lost[#lost + 1] = { workerId = worker, at = now, reason = reason }
      redis.call('HSET', job, 'lost', cjson.encode(lost))
      count = count + 1
    end
    redis.call('SADD', lostBy .. worker, id)
    redis.call('PEXPIRE', lostBy .. worker, ARGV[6])
  end
end
return count`,
  { whenFull: true },
)

/**
 * KEYS: the set of what this worker lost. ARGV: prefix of job keys, worker. What is dead by now keeps its evidence.
 * Returns from how many jobs it was taken back.
 */
const takeBack = new Script<number>(
  'take_back_lost_worker',
  `local ids = redis.call('SMEMBERS', KEYS[1])
if #ids == 0 then return 0 end
local count = 0
for _, id in ipairs(ids) do
  local job = ARGV[1] .. id
  local fields = redis.call('HMGET', job, 'lost', 'finishedOn')
  if fields[1] and not fields[2] then
    local all, rest = cjson.decode(fields[1]), {}
    for _, lost in ipairs(all) do
      if lost.workerId ~= ARGV[2] then rest[#rest + 1] = lost end
    end
    if #rest < #all then count = count + 1 end
    if #rest == 0 then redis.call('HDEL', job, 'lost') else redis.call('HSET', job, 'lost', cjson.encode(rest)) end
  end
end
redis.call('DEL', KEYS[1])
return count`,
  { whenFull: true },
)

/** Notes the loss for all jobs whose lease has run out; to be called before they go back to the line. */
export async function noteRunOut(queue: JobQueue): Promise<number> {
  return await noteAll(queue, 'lease ran out', [])
}

/** Notes the loss of their worker for these jobs, if they are still held so; to be called before they go back. */
export async function noteWorkerLost(
  queue: JobQueue,
  held: readonly { workId: string; token: string }[],
): Promise<number> {
  if (held.length === 0) return 0
  return await noteAll(
    queue,
    'worker lost',
    held.flatMap(({ workId, token }) => [workId, token]),
  )
}

/** This worker was heard of: whatever it was thought to have been lost under is not counted any more. */
export async function takeBackLosses(queue: JobQueue, workerId: string): Promise<number> {
  return await takeBack.run(queue.redis, [queue.keys.lostBy(workerId)], [queue.bullPrefix, workerId])
}

export const parseLostWorkers = (text: string | null | undefined): LostWorker[] =>
  text === null || text === undefined ? [] : (JSON.parse(text) as LostWorker[])

/** The evidence in words. */
export function describeLostWorkers(lost: readonly LostWorker[]): string {
  const each = lost.map(({ workerId, at, reason }) => `${workerId} at ${new Date(at).toISOString()} (${reason})`)
  return `the worker under it was lost ${lost.length} ${lost.length === 1 ? 'time' : 'times'}: ${each.join(', ')}`
}

async function noteAll(queue: JobQueue, reason: LostWorker['reason'], pairs: readonly string[]): Promise<number> {
  const args = [queue.bullPrefix, queue.keys.lostBy(''), Date.now(), reason, exclusiveAfterCount, rememberMs, ...pairs]
  return await note.run(queue.redis, [queue.bull.toKey('active')], args)
}
