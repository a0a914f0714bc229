/** The client's process: puts jobs to a node and pulls their results, over connections that it keeps. */
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { HttpConnection, requestBytes } from './http-connection.ts'
import { serveTasks } from './serve-tasks.ts'

export interface EnqueueParams {
  readonly url: string
  readonly jobs: number
  readonly connections: number
  readonly bodyBytes: number
}

export interface DrainParams {
  readonly url: string
  readonly jobs: number
}

export interface LatencyParams {
  readonly url: string
  readonly jobs: number
  readonly bodyBytes: number
  /** Jobs a second, evenly spaced whatever the answers do; 0: one at a time, each after the result of the last. */
  readonly jobsPerSecond: number
}

/** A client in no hurry for single results: it takes what has come since it last looked. */
const pullTop = 1000
const pullEveryMs = 25
const pullWaitMs = 10_000
/** Paced jobs are put over this many connections, so that none waits for another's answer. */
const pacedConnections = 32

const tasks = {
  /** Puts jobs, each connection the next as soon as the last was answered. @returns how long all of them took */
  async enqueue({ url, jobs, connections, bodyBytes }: EnqueueParams): Promise<{ elapsedMs: number }> {
    const request = putRequest(bodyBytes)
    const pool = await openAll(url, connections)
    try {
      let left = jobs
      const startedMs = performance.now()
      await Promise.all(
        pool.map(async connection => {
          while (left-- > 0) await connection.must(request)
        }),
      )
      return { elapsedMs: performance.now() - startedMs }
    } finally {
      for (const connection of pool) connection.close()
    }
  },

  /**
   * Lets the queue go and pulls its results. @returns how long it took from then to the last result
   * @throws Error when a result comes twice
   */
  async drain({ url, jobs }: DrainParams): Promise<{ elapsedMs: number }> {
    const connection = await HttpConnection.open(url)
    try {
      const startedMs = performance.now()
      await connection.must(requestBytes('POST', '/queues/default/resume'))
      await pullAll(connection, jobs)
      return { elapsedMs: performance.now() - startedMs }
    } finally {
      connection.close()
    }
  },

  /** Puts jobs and pulls their results at the same time. @returns how long it took to the last result */
  async passThrough(params: EnqueueParams): Promise<{ elapsedMs: number }> {
    const puller = await HttpConnection.open(params.url)
    try {
      const startedMs = performance.now()
      await Promise.all([tasks.enqueue(params), pullAll(puller, params.jobs)])
      return { elapsedMs: performance.now() - startedMs }
    } finally {
      puller.close()
    }
  },

  /** @returns for each job the time from the start of its PUT to its result at the client, in ms */
  async latency({ url, jobs, bodyBytes, jobsPerSecond }: LatencyParams): Promise<{ latenciesMs: number[] }> {
    const puller = await HttpConnection.open(url)
    const pool = await openAll(url, jobsPerSecond === 0 ? 1 : pacedConnections)
    try {
      const trip = new RoundTrips(puller)
      const request = putRequest(bodyBytes)
      if (jobsPerSecond === 0) await putOneByOne(trip, pool[0] as HttpConnection, request, jobs)
      else await putPaced(trip, pool, request, jobs, jobsPerSecond)
      return { latenciesMs: trip.latenciesMs }
    } finally {
      for (const connection of [puller, ...pool]) connection.close()
    }
  },
}

export type ClientTasks = typeof tasks

/** Matches results with the jobs that were put. */
class RoundTrips {
  readonly latenciesMs: number[] = []
  readonly #puller: HttpConnection
  readonly #putAtMs = new Map<string, number>()
  /** Results that were here before the answer to their PUT. */
  readonly #early = new Map<string, number>()

  constructor(puller: HttpConnection) {
    this.#puller = puller
  }

  async put(connection: HttpConnection, request: Buffer, startedMs = performance.now()): Promise<void> {
    const workId = (JSON.parse(await connection.must(request)) as { 'Work ID': string })['Work ID']
    const arrivedMs = this.#early.get(workId)
    this.#early.delete(workId)
    if (arrivedMs === undefined) this.#putAtMs.set(workId, startedMs)
    else this.latenciesMs.push(arrivedMs - startedMs)
  }

  /** Waits for results until as many have come as there were jobs. */
  async pullUntil(count: number): Promise<void> {
    const request = pullRequest()
    while (this.latenciesMs.length + this.#early.size < count) {
      const workIds = workIdsOf(await this.#puller.must(request))
      const nowMs = performance.now()
      for (const workId of workIds) {
        const startedMs = this.#putAtMs.get(workId)
        this.#putAtMs.delete(workId)
        if (startedMs === undefined) this.#early.set(workId, nowMs)
        else this.latenciesMs.push(nowMs - startedMs)
      }
    }
  }
}

async function putOneByOne(trip: RoundTrips, connection: HttpConnection, request: Buffer, jobs: number): Promise<void> {
  for (let count = 1; count <= jobs; count++) {
    // The client waits already when the job is put, as one does who wants its result soon.
    const pulled = trip.pullUntil(count)
    await Promise.all([pulled, trip.put(connection, request)])
  }
}

/** A job's time counts from when it was due, so that a stall is seen by all jobs that it holds up. */
async function putPaced(
  trip: RoundTrips,
  pool: readonly HttpConnection[],
  request: Buffer,
  jobs: number,
  jobsPerSecond: number,
): Promise<void> {
  const idle = [...pool]
  const startedMs = performance.now()
  const dueMs = (index: number): number => startedMs + (index * 1000) / jobsPerSecond
  let next = 0
  const puts = new Promise<void>((resolve, reject) => {
    let answered = 0
    const tick = (): void => {
      while (next < jobs && idle.length > 0 && performance.now() >= dueMs(next)) {
        const connection = idle.pop() as HttpConnection
        trip.put(connection, request, dueMs(next++)).then(() => {
          idle.push(connection)
          answered += 1
          if (answered === jobs) resolve()
        }, reject)
      }
      if (next < jobs) setTimeout(tick, Math.max(1, dueMs(next) - performance.now()))
    }
    tick()
  })
  await Promise.all([puts, trip.pullUntil(jobs)])
}

/** @throws Error when a result comes twice */
async function pullAll(connection: HttpConnection, jobs: number): Promise<void> {
  const request = pullRequest()
  const seen = new Set<string>()
  while (seen.size < jobs) {
    const workIds = workIdsOf(await connection.must(request))
    for (const workId of workIds) {
      if (seen.has(workId)) throw new Error(`The result of ${workId} came twice`)
      seen.add(workId)
    }
    if (seen.size < jobs && workIds.length < pullTop) await delay(pullEveryMs)
  }
}

const openAll = (url: string, count: number): Promise<HttpConnection[]> =>
  Promise.all(Array.from({ length: count }, () => HttpConnection.open(url)))

const putRequest = (bodyBytes: number): Buffer => requestBytes('PUT', '/enqueue?type=noop', randomBytes(bodyBytes))

const pullRequest = (): Buffer => requestBytes('POST', `/pullCompleted?top=${pullTop}&waitMs=${pullWaitMs}`)

const workIdsOf = (body: string): string[] => {
  const results = JSON.parse(body) as { 'Work ID': string }[]
  return results.map(result => result['Work ID'])
}

serveTasks(tasks)
