/** The queues that exist: those of the settings. Everything that names a queue finds it here. */
import { Problem } from '../errors.ts'
import type { RedisClient } from '../redis/connection.ts'
import type { DurableWrites } from '../redis/durable-writes.ts'
import { JobQueue } from './job-queue.ts'
import { queueOfWorkId } from './work-id.ts'

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
