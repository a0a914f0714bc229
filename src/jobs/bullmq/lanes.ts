/**
 * Lanes: what is ready to run stands in one sorted set for each type, so that a worker is given only jobs of types that
 * it has declared (docs/design/routing-by-type.md).
 *
 *   submit, retry, requeue, replay, due ──▶ BullMQ's wait and prioritized ──sort──▶ lane of the type ──claim──▶ active
 *
 * BullMQ's own lists are the way in. Every script that adds or takes jobs sorts what stands there, in the same atomic
 * step, so they are empty between two steps. A claim compares the heads of its lanes: the highest priority first, then
 * the earliest arrival, over all the types that the worker runs.
 */
import { Script } from '../../redis/script.ts'
import { bullFields, bullKeys, delayedUnit, priorityUnit } from './bull-layout.ts'
import type { JobQueue } from './job-queue.ts'

/** Jobs that one step sorts at most: some milliseconds, so that others get their turn. */
export const sortedAtOnce = 500
/** Steps of one sweep: an older version may have left many. */
const maxSweepSteps = 200

/** Priority 0 stands below all others, with room for as many arrivals as a number can count. */
const firstPlace = 2 ** 52

/** The prefix of the keys that the scripts below take beside BullMQ's: `<own>lane:<type>`, `<own>lanes`, … */
export const ownPrefix = (queue: JobQueue): string => queue.keys.lanes.slice(0, -'lanes'.length)

/**
 * Lua: `sort(bull, own, now, limit, types)` moves what is ready into the lane of its type; returns how many it looked
 * at. `types` gives the type by id of jobs that this step has added without a priority; nil: none. A job that was
 * started and lost its worker without an attempt spent goes before all others of its priority.
 */
export const sortLua = `local function sort(bull, own, now, limit, types)
  local waitKey, prioritizedKey, delayedKey = bull .. '${bullKeys.wait}', bull .. '${bullKeys.prioritized}', bull .. '${bullKeys.delayed}'
  local ids = redis.call('LRANGE', waitKey, -limit, -1)
  local prioritized = redis.call('ZRANGE', prioritizedKey, 0, limit - 1)
  local due = redis.call('ZRANGEBYSCORE', delayedKey, '-inf', (tonumber(now) + 1) * ${delayedUnit} - 1, 'LIMIT', 0, limit)
  local count = #ids + #prioritized + #due
  if count == 0 then return 0 end
  local placed = {}
  local arrivals = redis.call('INCRBY', own .. 'lane-arrivals', count) - count
  local function arrival()
    arrivals = arrivals + 1
    return arrivals
  end
  local function put(name, score, id)
    local lane = placed[name]
    if not lane then
      lane = {}
      placed[name] = lane
    end
    local size = #lane
    lane[size + 1], lane[size + 2] = score, id
  end
  local function place(id, mayBeFirst)
    local added = types and types[id]
    if added then return put(added, arrival() - ${firstPlace}, id) end
    local job = redis.call('HMGET', bull .. id, '${bullFields.type}', '${bullFields.priority}', '${bullFields.startedAt}', '${bullFields.starts}', '${bullFields.attempts}')
    local name, priority = job[1], tonumber(job[2]) or 0
    if not name then return end
    local isFirst = mayBeFirst and job[3] and (tonumber(job[4]) or 0) > (tonumber(job[5]) or 0)
    if mayBeFirst == 'later' and isFirst then return true end
    local score
    if isFirst then
      score = priority == 0 and -${firstPlace} - redis.call('INCR', own .. 'lane-firsts') or priority * ${priorityUnit}
    else
      score = priority == 0 and arrival() - ${firstPlace} or priority * ${priorityUnit} + arrival() % ${priorityUnit}
    end
    put(name, score, id)
  end
  local function placeAll(ids, from, to, step)
    -- The next one is the last of BullMQ's list. Those that come first are placed one before the other.
    local firsts = {}
    for i = from, to, step do
      if place(ids[i], 'later') then firsts[#firsts + 1] = ids[i] end
    end
    for i = #firsts, 1, -1 do place(firsts[i], 'now') end
  end
  if #ids > 0 then
    redis.call('LTRIM', waitKey, 0, -#ids - 1)
    placeAll(ids, #ids, 1, -1)
  end
  if #prioritized > 0 then
    redis.call('ZREMRANGEBYRANK', prioritizedKey, 0, #prioritized - 1)
    placeAll(prioritized, 1, #prioritized, 1)
  end
  if #due > 0 then
    redis.call('ZREMRANGEBYRANK', delayedKey, 0, #due - 1)
    for _, id in ipairs(due) do
      if redis.call('EXISTS', bull .. id) == 1 then
        redis.call('HSET', bull .. id, 'delay', 0)
        place(id)
      end
    end
  end
  for name, lane in pairs(placed) do
    redis.call('SADD', own .. 'lanes', name)
    for from = 1, #lane, 1000 do
      redis.call('ZADD', own .. 'lane:' .. name, unpack(lane, from, math.min(from + 999, #lane)))
    end
  end
  return count
end`

/**
 * Lua: `taker(bull, own, now, leaseMs, worker, types)` returns a function that leases the next job of these types under
 * the token given, by BullMQ's moveToActive, and returns what that returns, or nil. The lane stands in for BullMQ's
 * zset of prioritised jobs, and keys that never exist for its other lists.
 */
export const takerLua = (moveToActive: string): string => `local function moveToActive(KEYS, ARGV)
${moveToActive}
end
local function taker(bull, own, now, leaseMs, worker, types)
  local declared, heads, none = {}, {}, own .. 'lane-none:'
  for _, name in ipairs(types) do declared[name] = true end
  local laneCount = 0
  local function look(name)
    local head = redis.call('ZRANGE', own .. 'lane:' .. name, 0, 0, 'WITHSCORES')
    heads[name] = head[1] and tonumber(head[2]) or nil
    if not head[1] then redis.call('SREM', own .. 'lanes', name) end
  end
  for _, name in ipairs(redis.call('SMEMBERS', own .. 'lanes')) do
    if declared[name] then
      look(name)
      if heads[name] then laneCount = laneCount + 1 end
    end
  end
  local function isJob(fields)
    for i = 1, #fields, 2 do if fields[i] == '${bullFields.type}' then return true end end
    return false
  end
  return function(token)
    while true do
      local first
      for name, score in pairs(heads) do
        if not first or score < heads[first] or (score == heads[first] and name < first) then first = name end
      end
      if not first then return nil end
      local keys = { none .. 'wait', bull .. 'active', own .. 'lane:' .. first, bull .. 'events', bull .. 'stalled',
        bull .. 'limiter', none .. 'delayed', bull .. 'paused', bull .. 'meta', none .. 'pc', bull .. 'marker' }
      local options = { token = token, lockDuration = tonumber(leaseMs), name = worker }
      local taken = moveToActive(keys, { bull, now, cmsgpack.pack(options) })
      local isTaken = taken and taken[1] and taken[1] ~= 0
      -- The place of the next one matters only beside that of another lane.
      if not isTaken or laneCount > 1 then look(first) end
      if not isTaken then return nil end
      if isJob(taken[1]) then return taken end
      -- It was cancelled while it stood in the lane.
      redis.call('LREM', bull .. 'active', 1, taken[2])
      redis.call('DEL', bull .. taken[2], bull .. taken[2] .. ':lock')
    end
  end
end`

/** KEYS: lanes. ARGV: prefix of BullMQ's keys, prefix of ours, now, limit. Returns how many were looked at. */
const sortScript = new Script<number>(
  'sort_lanes',
  `${sortLua}
return sort(ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]))`,
  { whenFull: true },
)

/**
 * Sorts all that stands in BullMQ's lists: what an older version has left there, and what is due. Calling twice is
 * safe, also on two nodes at once.
 */
export async function sortWaiting(queue: JobQueue): Promise<void> {
  for (let step = 0; step < maxSweepSteps; step += 1) {
    const args = [queue.bullPrefix, ownPrefix(queue), Date.now(), sortedAtOnce]
    if ((await sortScript.run(queue.redis, [queue.keys.lanes], args)) < sortedAtOnce) return
  }
}

/**
 * How many jobs stand ready, by their type. Plain reads, no script, so that the watchdog sees past one that hangs.
 * @param redis another connection than that of the queue
 */
export async function countByType(queue: JobQueue, redis = queue.redis): Promise<Map<string, number>> {
  const types = await redis.smembers(queue.keys.lanes)
  if (types.length === 0) return new Map()
  const pipeline = redis.pipeline()
  for (const type of types) pipeline.zcard(queue.keys.lane(type))
  const counts = ((await pipeline.exec()) ?? []).map(([error, count]) => {
    if (error !== null) throw error
    return Number(count)
  })
  return new Map(types.map((type, index) => [type, counts[index] ?? 0] as const).filter(([, count]) => count > 0))
}
