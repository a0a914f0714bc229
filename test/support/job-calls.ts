/** The calls that tests of the API make again and again. */
import type { Lease } from '../../src/contract/worker-protocol.ts'
import type { TestApi, TestWorker } from './api.ts'

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

/** What the API says of a job. */
// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
export const view = async (api: TestApi, workId: string): Promise<any> =>
  (await api.call('GET', `/jobs/${workId}`)).body

/** How an attempt that failed is reported. */
export const failure = { error: { code: 'handler_error', message: 'no luck', stack: 'Error: no luck\n    at here' } }
