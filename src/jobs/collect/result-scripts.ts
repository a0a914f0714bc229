/**
 * What results.ts does in Redis, each one atomic step. A lease stands as "<lease id> <kind> <sequence>" under its Work
 * ID; with a "!" before it the result is being sent, and nobody will say again that it is to be let go.
 */
import { Script } from '../../redis/script.ts'

/**
 * Takes the oldest finished results and leases them. Results whose lease ran out go back to their place first; what was
 * being sent when its node was lost is acked.
 * KEYS: uncollected, uncollectedDead, leased, leases, abandoned. ARGV: prefix of job keys, now, top, end of lease,
 * lease id, "1" to include dead jobs, bytes allowed, bytes taken already, until when leases have run out. Returns Work
 * ID, "ok" or "dead", and the stored value or reason, in turn; last the bytes taken.
 */
export const pull = new Script<string[]>(
  'pull',
  `local prefix, top = ARGV[1], tonumber(ARGV[3])
local includeDead, allowed, taken = ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8])
if redis.call('ZSCORE', KEYS[5], ARGV[5]) then return { ARGV[8] } end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[9], 'LIMIT', 0, 1000)) do
  local lease = redis.call('HGET', KEYS[4], id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('HDEL', KEYS[4], id)
  if lease and string.sub(lease, 1, 1) ~= '!' then
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
  { whenFull: true },
)

/**
 * Ends leases, or notes that what is under them is being sent. KEYS: uncollected, uncollectedDead, leased, leases.
 * ARGV: "ack", "release" or "send", the lease id or "*" for any, end of the lease (send), then Work IDs. Returns those
 * that were held.
 */
export const settle = new Script<string[]>(
  'settle',
  `local held = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local lease = redis.call('HGET', KEYS[4], id)
  local owner, kind, sequence = string.match(lease or '', '^!?(%S+) (%S+) (%S+)$')
  if owner and (ARGV[2] == '*' or owner == ARGV[2]) then
    held[#held + 1] = id
    if ARGV[1] == 'send' then
      redis.call('ZADD', KEYS[3], ARGV[3], id)
      redis.call('HSET', KEYS[4], id, '!' .. owner .. ' ' .. kind .. ' ' .. sequence)
    else
      redis.call('ZREM', KEYS[3], id)
      redis.call('HDEL', KEYS[4], id)
      if ARGV[1] == 'release' then redis.call('ZADD', kind == 'dead' and KEYS[2] or KEYS[1], sequence, id) end
    end
  end
end
return held`,
  { whenFull: true },
)

/** KEYS: leases. ARGV: lease id. Returns the Work IDs under it. */
export const heldUnder = new Script<string[]>(
  'held_under',
  `local out, leases, start = {}, redis.call('HGETALL', KEYS[1]), ARGV[1] .. ' '
for i = 1, #leases, 2 do
  if string.sub(leases[i + 1], 1, #start) == start then out[#out + 1] = leases[i] end
end
return out`,
)

/**
 * Hands back all that is held under some leases, and keeps a late pull from taking anything under them.
 * KEYS: uncollected, uncollectedDead, leased, leases, abandoned. ARGV: now, until when older ones are forgotten, then
 * lease ids. Returns how many results went back.
 */
export const abandon = new Script<number>(
  'abandon_leases',
  `redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[2])
local gone = {}
for i = 3, #ARGV do
  gone[ARGV[i]] = true
  redis.call('ZADD', KEYS[5], ARGV[1], ARGV[i])
end
local leases, count = redis.call('HGETALL', KEYS[4]), 0
for i = 1, #leases, 2 do
  local owner, kind, sequence = string.match(leases[i + 1], '^!?(%S+) (%S+) (%S+)$')
  if owner and gone[owner] then
    redis.call('ZREM', KEYS[3], leases[i])
    redis.call('HDEL', KEYS[4], leases[i])
    redis.call('ZADD', kind == 'dead' and KEYS[2] or KEYS[1], sequence, leases[i])
    count = count + 1
  end
end
return count`,
  { whenFull: true },
)
