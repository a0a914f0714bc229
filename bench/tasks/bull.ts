/**
 * The yardstick: plain BullMQ as its guide shows it, producer and Worker in one process, on the Redis of the node. Jobs
 * carry the same data as ours, and finished ones are kept, as ours are.
 */
import { randomBytes } from 'node:crypto'
import { Queue, type QueueOptions, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { serveTasks } from './serve-tasks.ts'

export interface AddParams {
  readonly socketPath: string
  readonly jobs: number
  readonly bodyBytes: number
  readonly inFlight: number
}

export interface AddBulkParams {
  readonly socketPath: string
  readonly jobs: number
  readonly bodyBytes: number
  /** Jobs in one call. */
  readonly bulk: number
}

export interface WorkParams {
  readonly socketPath: string
  readonly jobs: number
  readonly concurrency: number
}

const queueName = 'yardstick'

const dataOf = (bodyBytes: number): object => ({ payload: { base64: randomBytes(bodyBytes).toString('base64') } })

const tasks = {
  /** Adds jobs one by one, so many at a time in flight. @returns how long all of them took */
  async add({ socketPath, jobs, bodyBytes, inFlight }: AddParams): Promise<{ elapsedMs: number }> {
    const queue = await openQueue(socketPath)
    const data = dataOf(bodyBytes)
    let left = jobs
    const startedMs = performance.now()
    await Promise.all(
      Array.from({ length: inFlight }, async () => {
        while (left-- > 0) await queue.add('noop', data)
      }),
    )
    return { elapsedMs: performance.now() - startedMs }
  },

  /** Adds jobs in bulks, one after the other. @returns how long all of them took */
  async addBulk({ socketPath, jobs, bodyBytes, bulk }: AddBulkParams): Promise<{ elapsedMs: number }> {
    const queue = await openQueue(socketPath)
    const data = dataOf(bodyBytes)
    const startedMs = performance.now()
    for (let done = 0; done < jobs; done += bulk) {
      const count = Math.min(bulk, jobs - done)
      await queue.addBulk(Array.from({ length: count }, () => ({ name: 'noop', data })))
    }
    return { elapsedMs: performance.now() - startedMs }
  },

  /** Works off the jobs that wait, with a Worker that does nothing. @returns how long it took from its start to the last */
  async work({ socketPath, jobs, concurrency }: WorkParams): Promise<{ elapsedMs: number }> {
    const connection = connect(socketPath)
    const worker = new Worker(queueName, async () => null, { connection, concurrency, autorun: false })
    try {
      await worker.waitUntilReady()
      return await new Promise((resolve, reject) => {
        let completed = 0
        worker.on('completed', () => {
          completed += 1
          if (completed === jobs) resolve({ elapsedMs: performance.now() - startedMs })
        })
        worker.on('failed', (_job, error) => reject(error))
        worker.on('error', reject)
        const startedMs = performance.now()
        worker.run().catch(reject)
      })
    } finally {
      await worker.close()
      connection.disconnect()
    }
  },
}

export type BullTasks = typeof tasks

/** BullMQ's types come with an ioredis of their own. */
const connect = (socketPath: string): Redis & NonNullable<QueueOptions['connection']> =>
  new Redis({ path: socketPath, maxRetriesPerRequest: null }) as never

let opened: Queue | undefined

async function openQueue(socketPath: string): Promise<Queue> {
  if (opened === undefined) {
    opened = new Queue(queueName, { connection: connect(socketPath) })
    await opened.waitUntilReady()
  }
  return opened
}

serveTasks(tasks)
