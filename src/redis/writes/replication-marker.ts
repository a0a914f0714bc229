/**
 * The replication marker: a write in the stream that a primary sends to its replicas. The stream has an order, so a
 * replica with the marker has all writes before it, of every connection; and a WAIT behind the marker counts such
 * replicas even when nothing else was written before it.
 *
 * Each stream has a replication id, which a server changes each time it becomes primary: no two servers are ever
 * primary under one id, and none is twice.
 */
import type { RedisClient } from '../connect/connection.ts'
import { hashTagOf } from '../keys.ts'

const replicationIdLua = `local info = redis.call('INFO', 'replication')
return (string.match(info, 'role:(%a+)') or '') .. ' ' .. (string.match(info, 'master_replid:(%x+)') or '')`

/**
 * KEYS: the marker. ARGV: '1' to return the replication id. A new time to live is a write that Redis takes even when it
 * is full, and completions and acks must go on then.
 */
export const markerLua = `if redis.call('PEXPIRE', KEYS[1], 86400000) == 0 then redis.call('SET', KEYS[1], '', 'PX', 86400000) end
if ARGV[1] ~= '1' then return '' end
${replicationIdLua}`

/** The key of the marker that shares the hash tag of this key. */
export const markerKeyOf = (key: string): string => `${hashTagOf(key)}:marker`

/** Role and replication id of the server that holds this key. */
export async function replicationIdOf(redis: RedisClient, key: string): Promise<string> {
  return String(await redis.eval(replicationIdLua, 1, key))
}

/** Only a primary's id counts: a replica has the id of its primary. */
export const isPrimary = (replicationId: string): boolean => /^master \S/.test(replicationId)
