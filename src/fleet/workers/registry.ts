/**
 * Who works for us: every worker that says it is there, kept in Redis so that all nodes see the same.
 * unknown → ready → draining → stopped → forgotten; whoever is silent for too long is no longer alive, and is forgotten
 * by the reaper. A worker that comes back after that registers anew with its next heartbeat.
 *
 * Here stands the cordon as well: a worker that is to drain claims nothing any more, and neither does one that registers
 * from an instance that was cordoned before. "Cordon, see zero leases, terminate" rests on it, so a cordon is kept (see
 * redis/writes/durable-writes.ts) before anybody relies on it. Heartbeats are not waited for: the next one says the same.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { WorkerDescription } from '../../contract/worker-protocol.ts'
import { Problem } from '../../errors.ts'
import type { Notifier } from '../../notifier.ts'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { runsWhenFull, Script } from '../../redis/script.ts'
import { type DurableWrites, LocalWrites } from '../../redis/writes/durable-writes.ts'
import { keys } from '../redis-keys.ts'
import type { Interruption } from '../scaling/snapshot.ts'
import { runnable, toRecord, type WorkerRecord, type WorkerState } from './worker-record.ts'

export type { WorkerRecord, WorkerState } from './worker-record.ts'

/** Types that no worker has declared for this long are unknown again. */
const typesKnownMs = 30 * 86_400_000
/** What the workers of one API key may make. A worker counts for as long as it may be alive. */
const workersPerKey = 1000
const typesPerKey = 1000

const refusals: Readonly<Record<number, string>> = {
  [-2]: 'This worker works for another queue: a worker that changes its queue takes a new workerId.',
  [-3]: 'This worker came with another API key: a key speaks only for the workers that it introduced.',
  [-4]: `This API key has ${workersPerKey} workers already: reuse their ids, or make another key.`,
  [-5]: `The workers of this API key have declared ${typesPerKey} types already.`,
}

/** As a worker tells it; `at` is ISO 8601. */
export interface InterruptionNotice {
  readonly kind: Interruption['kind']
  readonly at: string
}

/**
 * KEYS: worker, workers, types, cordon of its instance, workers and types of the API key. ARGV: id, now, state, leases,
 * description, kind and time of an interruption (or empty), instance, whether the worker has to be of this instance (1) or
 * not (empty), queue, API key (or empty), how many workers and types a key may have, since when both count, since when
 * types are known, type…
 * A worker belongs to the instance and the queue that it first named, and to the API key that it first came with: what does
 * not fit is refused before anything is written: -1 another instance, -2 another queue, -3 another key, -4 too many workers
 * of one key, -5 too many types of one key.
 * Records one sign of life; returns the reason to drain, or an empty string, whether an interruption is news, and whether it
 * declares other types than before: then it runs other handlers, and what it could not run before counts no more.
 * A rebalance may become an interruption, not the other way round.
 * A stopped worker has score 0: listed until it is forgotten, never alive. A sign of life from its drain that arrives late
 * does not bring it back; one that says ready does.
 */
const heartbeatScript = runsWhenFull(`
local instance = redis.call('HGET', KEYS[1], 'instance')
if ARGV[9] ~= '' and instance and instance ~= ARGV[8] then return {'', -1} end
local queue = redis.call('HGET', KEYS[1], 'queue')
if queue and queue ~= ARGV[10] then return {'', -2} end
local isKnown = redis.call('EXISTS', KEYS[1]) == 1
local owner = redis.call('HGET', KEYS[1], 'key')
if ARGV[11] ~= '' then
  if isKnown and owner ~= ARGV[11] then return {'', -3} end
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[14])
  if not isKnown and redis.call('ZCARD', KEYS[5]) >= tonumber(ARGV[12]) then return {'', -4} end
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', ARGV[15])
  local count = redis.call('ZCARD', KEYS[6])
  for i = 16, #ARGV do
    if not redis.call('ZSCORE', KEYS[6], ARGV[i]) then count = count + 1 end
  end
  if count > tonumber(ARGV[13]) then return {'', -5} end
  redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
  for i = 16, #ARGV do redis.call('ZADD', KEYS[6], ARGV[2], ARGV[i]) end
  for i = 5, 6 do redis.call('PEXPIRE', KEYS[i], ${typesKnownMs}) end
  redis.call('HSETNX', KEYS[1], 'key', ARGV[11])
end
redis.call('HSETNX', KEYS[1], 'instance', ARGV[8])
redis.call('HSETNX', KEYS[1], 'queue', ARGV[10])
redis.call('HSETNX', KEYS[1], 'firstSeenAt', ARGV[2])
local state = ARGV[3]
if state == 'draining' and redis.call('HGET', KEYS[1], 'state') == 'stopped' then state = 'stopped' end
redis.call('HSET', KEYS[1], 'lastSeenAt', ARGV[2], 'state', state, 'leases', ARGV[4], 'description', ARGV[5])
local types = table.concat({ unpack(ARGV, 16) }, '\\n')
local before = redis.call('HGET', KEYS[1], 'types')
local areOthers = before and before ~= types
if areOthers then redis.call('HDEL', KEYS[1], 'unsupported') end
redis.call('HSET', KEYS[1], 'types', types)
if ARGV[4] ~= '0' then redis.call('HSET', KEYS[1], 'workedAt', ARGV[2]) end
if ARGV[3] ~= 'ready' then redis.call('HSETNX', KEYS[1], 'drainSince', ARGV[2]) end
local known = redis.call('HGET', KEYS[1], 'interruption')
local isNews = ARGV[6] ~= '' and known ~= 'interruption' and known ~= ARGV[6]
if isNews then redis.call('HSET', KEYS[1], 'interruption', ARGV[6], 'interruptedAt', ARGV[7]) end
local cordon = redis.call('GET', KEYS[4]) or (isNews and 'interrupted')
if cordon then
  redis.call('HSETNX', KEYS[1], 'drain', cordon)
  redis.call('HSETNX', KEYS[1], 'drainSince', ARGV[2])
end
redis.call('ZADD', KEYS[2], state == 'stopped' and 0 or ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[15])
for i = 16, #ARGV do redis.call('ZADD', KEYS[3], ARGV[2], ARGV[i]) end
return {redis.call('HGET', KEYS[1], 'drain') or '', isNews and 1 or 0, areOthers and 1 or 0}`)

/** KEYS: worker. ARGV: reason, now. Marks a known worker; the first reason stays. Returns 1, or 0 when it is unknown. */
const drain = new Script<number>(
  'drain_worker',
  `if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSETNX', KEYS[1], 'drain', ARGV[1])
redis.call('HSETNX', KEYS[1], 'drainSince', ARGV[2])
return 1`,
  { whenFull: true },
)

/** KEYS: cordon of an instance. ARGV: reason (none: takes it away), time to live in ms. */
const cordon = new Script<unknown>(
  'cordon_instance',
  `if ARGV[1] == '' then return redis.call('DEL', KEYS[1]) end
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])`,
  { whenFull: true },
)

/** KEYS: launched types. ARGV: queue, types. Also in a full Redis: the fleet goes on there. */
const rememberTypes = new Script<number>('remember_types', `return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])`, {
  whenFull: true,
})

/** KEYS: worker. ARGV: now. Notes that a known worker has work. */
const workedScript = runsWhenFull(`
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'workedAt', ARGV[1])
return redis.call('HSETNX', KEYS[1], 'firstClaimAt', ARGV[1])`)

/** KEYS: worker, workers. ARGV: id. No transaction, which a full Redis would refuse. */
const forget = new Script<number>(
  'forget_worker',
  `redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])`,
)

/** KEYS: worker. ARGV: type. Adds it to what a known worker does not run. */
const unsupported = new Script<unknown>(
  'note_unsupported_type',
  `if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local known = cjson.decode(redis.call('HGET', KEYS[1], 'unsupported') or '[]')
for _, type in ipairs(known) do if type == ARGV[1] then return 0 end end
known[#known + 1] = ARGV[1]
redis.call('HSET', KEYS[1], 'unsupported', cjson.encode(known))
return 1`,
)

/** A cordon outlives the instance behind it by far. */
const cordonMs = 3_600_000

/** How often, at most, work of one worker is noted. */
const workedEveryMs = 1000

export class WorkerRegistry {
  readonly #redis: RedisClient
  readonly #writes: DurableWrites
  readonly #notifier: Notifier
  readonly #log: FastifyBaseLogger
  readonly #aliveMs: number
  readonly #clock: () => number
  readonly #workedAt = new Map<string, number>()

  /** @param aliveMs a worker that was heard of within this time is alive */
  constructor(options: {
    redis: RedisClient
    writes?: DurableWrites
    notifier: Notifier
    log: FastifyBaseLogger
    aliveMs: number
    clock?: () => number
  }) {
    this.#redis = options.redis
    this.#writes = options.writes ?? new LocalWrites(options.redis)
    this.#notifier = options.notifier
    this.#log = options.log
    this.#aliveMs = options.aliveMs
    this.#clock = options.clock ?? Date.now
  }

  /**
   * Records that a worker is there (registering it when it is new). One call to Redis, atomic.
   * @param interruption what it heard of the end of its host: from then on it is to drain, and the autoscaler is woken
   * @param isBound whoever says so may speak only for the instance that it names: not for a worker of another one
   * @param keyId the API key that it came with; empty: none
   * @throws Problem forbidden, and nothing is recorded, when it is of another queue or key, or the key has too many
   * @returns whether it is to drain; undefined, and nothing is recorded, when the worker belongs to another instance
   */
  async heartbeat(
    worker: WorkerDescription,
    state: WorkerState,
    leaseCount: number,
    interruption?: InterruptionNotice,
    isBound = false,
    keyId = '',
  ): Promise<{ drain: boolean; typesChanged?: true } | undefined> {
    const { workerId, types, instanceId = workerId, queue } = worker
    const now = this.#clock()
    const notice = interruption === undefined ? ['', ''] : [interruption.kind, timeOf(interruption, now)]
    const owner = [instanceId, isBound ? '1' : '']
    const ofKey = [keys.workersOfKey(keyId), keys.typesOfKey(keyId)]
    const names = [keys.worker(workerId), keys.workers, keys.types, keys.cordon(instanceId), ...ofKey]
    const limits = [queue, keyId, workersPerKey, typesPerKey, now - this.#aliveMs, now - typesKnownMs]
    const args = [workerId, now, state, leaseCount, JSON.stringify(worker), ...notice, ...owner, ...limits, ...types]
    const reply = await this.#redis.eval(heartbeatScript, names.length, ...names, ...args)
    const [drain, isNews, areOthers] = reply as [string, number, number?]
    if (isNews === -1) return undefined
    if (isNews < -1) throw new Problem('forbidden', refusals[isNews])
    if (isNews === 1) {
      this.#log.warn({ queue, workerId, instanceId, ...interruption }, 'the host of a worker is being taken away')
      this.#notifier.notify('backlog')
    }
    return { drain: drain !== '', ...(areOthers === 1 && { typesChanged: true }) }
  }

  async knows(workerId: string): Promise<boolean> {
    return (await this.#redis.exists(keys.worker(workerId))) === 1
  }

  /** The cordon: whether a worker may take jobs now. One cheap call to Redis, since every claim asks. @throws Problem forbidden */
  async mayClaim(workerId: string, keyId = ''): Promise<'yes' | 'unknown' | 'drain'> {
    const [state, drain, key] = await this.#redis.hmget(keys.worker(workerId), 'state', 'drain', 'key')
    if (keyId !== '' && typeof state === 'string' && key !== keyId) throw new Problem('forbidden', refusals[-3])
    if (state === null || state === undefined) return 'unknown'
    return state !== 'ready' || typeof drain === 'string' ? 'drain' : 'yes'
  }

  /** The types of jobs that a worker may be given: what it declared, without what it turned out not to run. */
  async typesOf(workerId: string): Promise<readonly string[]> {
    const [description, unsupported] = await this.#redis.hmget(keys.worker(workerId), 'description', 'unsupported')
    return typeof description !== 'string' ? [] : runnable(JSON.parse(description) as WorkerDescription, unsupported)
  }

  /** A worker has no handler for a type that it declared: it is not given that type again. Unknown workers are left out. */
  async noteUnsupported(workerId: string, type: string): Promise<void> {
    await unsupported.run(this.#redis, [keys.worker(workerId)], [type])
    this.#log.warn({ workerId, type }, 'a worker declares a type that it has no handler for; it is not given it again')
  }

  /**
   * Notes that a worker took or finished jobs, so that it does not look idle between two heartbeats. Returns at once and
   * never fails: a lost note only lets the worker look idle for longer. Writes at most once a second for each worker.
   */
  worked(workerId: string): void {
    const now = this.#clock()
    if (now - (this.#workedAt.get(workerId) ?? 0) < workedEveryMs) return
    if (this.#workedAt.size > 10_000) this.#workedAt.clear()
    this.#workedAt.set(workerId, now)
    this.#redis
      .eval(workedScript, 1, keys.worker(workerId), now)
      .catch((error: unknown) => this.#log.debug({ err: error, workerId }, 'work of a worker was not noted'))
  }

  /** The workers that are alive, oldest first. */
  async list(): Promise<WorkerRecord[]> {
    const aliveSince = this.#clock() - this.#aliveMs
    return (await this.all()).filter(({ state, lastSeenAt }) => state !== 'stopped' && lastSeenAt >= aliveSince)
  }

  /** All workers that are not forgotten: also silent and stopped ones. Oldest first. */
  async all(): Promise<WorkerRecord[]> {
    const ids = await this.#redis.zrange(keys.workers, '0', '-1')
    if (ids.length === 0) return []
    const pipeline = this.#redis.pipeline()
    for (const id of ids) pipeline.hgetall(keys.worker(id))
    const replies = (await pipeline.exec()) ?? []
    const records = replies.flatMap(([error, fields]) => {
      if (error !== null) throw error
      return toRecord(fields as Record<string, string>)
    })
    return records.sort((a, b) => a.firstSeenAt - b.firstSeenAt || (a.workerId < b.workerId ? -1 : 1))
  }

  /** How many workers are alive. */
  async countAlive(): Promise<number> {
    return await this.#redis.zcount(keys.workers, this.#clock() - this.#aliveMs, '+inf')
  }

  /**
   * Cordons a worker: from now on it claims nothing, and its open heartbeat returns at once. Calling twice is safe.
   * @returns false when no such worker is known
   */
  async requestDrain(workerId: string, reason: string): Promise<boolean> {
    const found = await this.#writes.run(drain, [keys.worker(workerId)], [reason, this.#clock()])
    if (found === 1) this.#notifier.notify(`worker:${workerId}`)
    return found === 1
  }

  /**
   * Cordons an instance from which no worker has registered: whoever registers from it later claims nothing. Read the
   * workers again afterwards: who is there then was there before the cordon.
   */
  async cordonInstance(instanceId: string, reason: string): Promise<void> {
    await this.#writes.run(cordon, [keys.cordon(instanceId)], [reason, cordonMs])
  }

  /** Takes such a cordon away. A worker that met it drains all the same. */
  async uncordonInstance(instanceId: string): Promise<void> {
    await this.#writes.run(cordon, [keys.cordon(instanceId)], ['', cordonMs])
  }

  /** The workers of one instance that are not forgotten: also silent and stopped ones. */
  async ofInstance(instanceId: string): Promise<WorkerRecord[]> {
    return (await this.all()).filter(worker => worker.instanceId === instanceId)
  }

  /** Removes all trace of a worker but its types. Harmless when it is unknown. */
  async forget(workerId: string): Promise<void> {
    this.#workedAt.delete(workerId)
    await forget.run(this.#redis, [keys.worker(workerId), keys.workers], [workerId])
  }

  /** What workers on instances of this pool declared last. */
  async launchedTypes(queue: string): Promise<readonly string[]> {
    return JSON.parse((await this.#redis.hget(keys.launchedTypes, queue)) ?? '[]') as string[]
  }

  async rememberLaunchedTypes(queue: string, types: readonly string[]): Promise<void> {
    await rememberTypes.run(this.#redis, [keys.launchedTypes], [queue, JSON.stringify(types)])
  }

  /** All types that a worker registered within the last month: those of workers that were scaled to zero, too. */
  async knownTypes(): Promise<Set<string>> {
    return new Set(await this.#redis.zrange(keys.types, this.#clock() - typesKnownMs, '+inf', 'BYSCORE'))
  }
}

/** A time that nobody can read is taken to be now. */
function timeOf({ at }: InterruptionNotice, now: number): number {
  const time = Date.parse(at)
  return Number.isNaN(time) ? now : time
}
