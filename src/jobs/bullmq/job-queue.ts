/**
 * One queue: the BullMQ queue that holds its jobs, and the keys beside it. BullMQ's manual processing (moveToActive,
 * moveToCompleted, extendLocks) makes a worker's lease BullMQ's own lock.
 */
import { type Job, Queue, type QueueOptions } from 'bullmq'
import { Problem } from '../../errors.ts'
import type { RedisClient } from '../../redis/connect/connection.ts'
import { prefixOf, queueKey } from '../../redis/keys.ts'
import { letBullMqFinishWhenFull } from '../../redis/script.ts'
import { type DurableWrites, LocalWrites } from '../../redis/writes/durable-writes.ts'
import type { JobData } from '../job-data.ts'
import { queueOfWorkId } from '../work-id.ts'

/** BullMQ's answers to an operation on a job that is not (or no longer) ours. */
const staleCodes = new Set([-1, -2, -3, -6])

/** True when BullMQ refused because the job is gone, finished, or leased under another token. */
export const isStale = (error: unknown): boolean => staleCodes.has((error as { code?: number } | undefined)?.code ?? 0)

/** Tokens name their worker, so that the leases of a worker can be found from the locks alone. */
export const workerOfToken = (token: string): string => token.slice(0, token.indexOf('/'))

export class JobQueue {
  readonly name: string
  readonly bull: Queue<JobData>
  readonly redis: RedisClient
  /** For all that somebody is told of. */
  readonly writes: DurableWrites
  readonly leaseMs: number
  readonly keys: {
    /** zset, score = order of finishing: succeeded and not handed out */
    readonly uncollected: string
    /** zset, likewise for dead jobs */
    readonly uncollectedDead: string
    /** counter behind the scores */
    readonly sequence: string
    /** zset, score = end of the lease: results that somebody holds */
    readonly leased: string
    /** hash, Work ID → "<lease id> <kind> <sequence>" of what is leased */
    readonly leases: string
    /** zset (score = when): ids of leases on results that belong to nobody, since their pull broke off */
    readonly abandoned: string
    /** zset (score = when) and hash (Work ID → JSON) of cancelled jobs */
    readonly cancelled: string
    readonly cancelledData: string
    /** hash of counters: finished, busyUs */
    readonly stats: string
    /** hash: draining */
    readonly control: string
    /** set: the types of which jobs stand ready, each in a lane */
    readonly lanes: string
    /** zset, score = place in line: Work IDs of one type that are ready to run */
    readonly lane: (type: string) => string
    /** set, one a worker: Work IDs of jobs under which it was thought to be lost */
    readonly lostBy: (workerId: string) => string
  }

  constructor(name: string, redis: RedisClient, leaseMs: number, writes: DurableWrites = new LocalWrites(redis)) {
    this.name = name
    this.redis = redis
    this.writes = writes
    this.leaseMs = leaseMs
    // The lease options belong to a BullMQ Worker; the scripts read them from the options of whoever calls.
    const options: QueueOptions & { lockDuration: number; maxStalledCount: number; stalledInterval: number } = {
      connection: redis as unknown as QueueOptions['connection'],
      prefix: prefixOf(name),
      // Nobody reads BullMQ's event stream here: nodes tell each other by the notifier.
      streams: { events: { maxLen: 100 } },
      lockDuration: leaseMs,
      // Lost workers are counted by us (lost-workers.ts) and judged when the job is claimed again, not by BullMQ.
      maxStalledCount: Number.MAX_SAFE_INTEGER,
      stalledInterval: 1,
    }
    letBullMqFinishWhenFull(redis)
    this.bull = new Queue<JobData>(name, options)
    this.bull.on('error', () => undefined)
    const key = (suffix: string): string => queueKey(name, suffix)
    this.keys = {
      uncollected: key('uncollected'),
      uncollectedDead: key('uncollected-dead'),
      sequence: key('sequence'),
      leased: key('leased'),
      leases: key('leases'),
      abandoned: key('abandoned'),
      cancelled: key('cancelled'),
      cancelledData: key('cancelled-data'),
      stats: key('stats'),
      control: key('control'),
      lanes: key('lanes'),
      lane: type => key(`lane:${type}`),
      lostBy: workerId => key(`lost-by:${workerId}`),
    }
  }

  get backend(): ReturnType<Queue<JobData>['getBackend']> {
    return this.bull.getBackend()
  }

  /** Prefix of BullMQ's keys; with a Work ID behind it, the key of that job. */
  get bullPrefix(): string {
    return this.bull.toKey('')
  }

  jobKey(workId: string): string {
    return this.bull.toKey(workId)
  }

  /** Resolves once all that the operation wrote and saw is kept: see DurableWrites. */
  async confirm<T>(operation: () => Promise<T>): Promise<T> {
    return await this.writes.confirm(this.keys.control, operation)
  }

  async job(workId: string): Promise<Job<JobData> | undefined> {
    return (await this.bull.getJob(workId)) as Job<JobData> | undefined
  }

  /** Work IDs and lock tokens of all that is leased; a token is undefined when its lease just ran out. */
  async leasedJobs(): Promise<{ workId: string; token: string | undefined }[]> {
    const active = await this.redis.lrange(this.bull.toKey('active'), 0, -1)
    if (active.length === 0) return []
    const tokens = await this.redis.mget(active.map(workId => `${this.jobKey(workId)}:lock`))
    return active.map((workId, index) => ({ workId, token: tokens[index] ?? undefined }))
  }

  async close(): Promise<void> {
    await this.bull.close()
  }
}

/** The queues that exist: those of the settings. Everything that names a queue finds it here. */
export class Queues {
  readonly #queues: ReadonlyMap<string, JobQueue>

  constructor(names: readonly string[], redis: RedisClient, leaseMs: number, writes?: DurableWrites) {
    this.#queues = new Map(names.map(name => [name, new JobQueue(name, redis, leaseMs, writes)]))
  }

  all(): JobQueue[] {
    return [...this.#queues.values()]
  }

  names(): string[] {
    return [...this.#queues.keys()]
  }

  find(name: string): JobQueue | undefined {
    return this.#queues.get(name)
  }

  /** @throws Problem queue_unknown */
  get(name: string): JobQueue {
    const queue = this.#queues.get(name)
    if (queue === undefined)
      throw new Problem('queue_unknown', `There is no queue "${name}"; there are: ${this.names().join(', ')}.`)
    return queue
  }

  /** @throws Problem job_not_found when this cannot be the Work ID of a job here */
  ofWorkId(workId: string): JobQueue {
    const queue = this.#queues.get(queueOfWorkId(workId) ?? '')
    if (queue === undefined) throw jobNotFound(workId)
    return queue
  }

  async close(): Promise<void> {
    await Promise.all(this.all().map(queue => queue.close()))
  }
}

export const jobNotFound = (workId: string): Problem =>
  new Problem('job_not_found', `There is no job with the Work ID "${workId.slice(0, 200)}".`)
