/** The calls that tests of the API make again and again. */
import type { Lease } from '../../src/contract/worker-protocol.ts'
import { sortWaiting } from '../../src/jobs/bullmq/lanes.ts'
import type { TestApi, TestWorker } from './api.ts'
import { until } from './until.ts'

/** Submits a job; `query` is that of PUT /enqueue. @returns its Work ID */
export async function put(api: TestApi, query: string, payload: unknown = null): Promise<string> {
  const reply = await api.call('PUT', `/enqueue?${query}`, { json: { payload } })
  if (reply.status !== 200) throw new Error(JSON.stringify(reply.body))
  return reply.body['Work ID']
}

/** Claims one job. @throws when there is none within `waitMs` */
export async function one(worker: TestWorker, waitMs = 0): Promise<Lease> {
  const [lease] = await worker.claim(1, waitMs)
  if (lease === undefined) throw new Error('no job to claim')
  return lease
}

/** The time of a lease is over, all at once: returns when its job is back in the line, which nobody may wait at. */
export async function runOut(api: TestApi, workId: string): Promise<void> {
  const { queue, leases } = api.jobs.of('default')
  await queue.redis.del(`${queue.jobKey(workId)}:lock`)
  // The node itself does the same now and then, and may be the one that hands it back.
  await until(async () => {
    await leases.recoverLost()
    return (await queue.redis.lpos(queue.jobKey('active'), workId)) === null
  })
  await sortWaiting(queue)
}

/** What the API says of a job. */
// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
export const view = async (api: TestApi, workId: string): Promise<any> =>
  (await api.call('GET', `/jobs/${workId}`)).body

/** How an attempt that failed is reported. */
export const failure = { error: { code: 'handler_error', message: 'no luck', stack: 'Error: no luck\n    at here' } }
