/**
 * A mark in the stream of writes that a primary sends to its replicas. The stream has an order, so a replica that has the
 * mark has all that was written before it, over whichever connection; and a WAIT behind the mark counts such replicas
 * even when nothing else was written before it.
 *
 * Each stream bears the name of its history, which a server takes anew whenever it becomes primary: no two servers ever
 * are primary under one name, and none is twice.
 */
import type { RedisClient } from '../connect/connection.ts'
import { hashTagOf } from '../keys.ts'

const historyLua = `local info = redis.call('INFO', 'replication')
return (string.match(info, 'role:(%a+)') or '') .. ' ' .. (string.match(info, 'master_replid:(%x+)') or '')`

/**
 * KEYS: the mark. ARGV: '1' to return the history. A new time to live is a write that Redis takes even when it is full,
 * and completions and acks must go on then.
 */
export const markLua = `if redis.call('PEXPIRE', KEYS[1], 86400000) == 0 then redis.call('SET', KEYS[1], '', 'PX', 86400000) end
if ARGV[1] ~= '1' then return '' end
${historyLua}`

/** The key of the mark that lives with this key. */
export const markKeyOf = (key: string): string => `${hashTagOf(key)}:mark`

/** Role and history of the server that holds this key. */
export async function historyOf(redis: RedisClient, key: string): Promise<string> {
  return String(await redis.eval(historyLua, 1, key))
}

/** Only a primary's history counts: a replica bears the name of its primary's. */
export const isPrimary = (history: string): boolean => /^master \S/.test(history)
