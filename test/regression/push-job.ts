/** One recorded job: submitted, waited for, compared. */
import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import type { DeploymentClient, Reply } from './deployment-client.ts'
import type { RecordedJob } from './recorded-jobs.ts'

export interface Outcome {
  readonly name: string
  readonly ms: number
  /** What was wrong; absent when all was as recorded. */
  readonly fault?: string
}

export interface PushOptions {
  readonly client: DeploymentClient
  readonly queue: string
  readonly timeoutMs: number
  /** The node to submit through; the next one is asked for the result. */
  readonly first: number
}

const lookAgainMs = 100

/** Never rejects: what goes wrong is the outcome. */
export async function pushJob(job: RecordedJob, options: PushOptions): Promise<Outcome> {
  const startedAt = Date.now()
  const fault = await push(job, options, startedAt + options.timeoutMs).catch(
    (error: unknown) => (error as Error).message,
  )
  const outcome = { name: job.name, ms: Date.now() - startedAt }
  return fault === undefined ? outcome : { ...outcome, fault }
}

async function push(
  job: RecordedJob,
  { client, queue, first }: PushOptions,
  deadline: number,
): Promise<string | undefined> {
  const query = new URLSearchParams(
    Object.entries({ queue, ...job.query }).map(([name, value]) => [name, String(value)] as [string, string]),
  )
  // The same key at every try: however often it is sent, it is one job.
  const key = { 'idempotency-key': randomUUID() }
  const body =
    job.base64 !== undefined
      ? { body: Buffer.from(job.base64, 'base64'), headers: { ...key, 'content-type': 'application/octet-stream' } }
      : job.payload !== undefined
        ? { body: JSON.stringify({ payload: job.payload }), headers: { ...key, 'content-type': 'application/json' } }
        : { headers: key }
  const reply = await client.call({ method: 'PUT', path: `/enqueue?${query}`, ...body }, first, deadline)
  const answer = toJson(reply)
  if (job.refused !== undefined)
    return reply.status >= 400 && answer.code === job.refused
      ? undefined
      : `should be refused as ${job.refused}, got ${show(reply)}`
  const workId = answer['Work ID']
  if (reply.status !== 200 || typeof workId !== 'string') return `was not taken: ${show(reply)}`
  return compare(job, await outcomeOf(client, workId, first + 1, deadline))
}

async function outcomeOf(client: DeploymentClient, workId: string, first: number, deadline: number): Promise<Reply> {
  for (;;) {
    const reply = await client.call({ method: 'GET', path: `/jobs/${workId}/result` }, first, deadline)
    if (reply.status !== 409 || toJson(reply).code !== 'result_not_ready') return reply
    if (Date.now() > deadline) throw new Error(`the job ${workId} had no outcome in time`)
    await sleep(lookAgainMs)
  }
}

function compare({ value, atLeast, bytes, dead }: RecordedJob, reply: Reply): string | undefined {
  if (dead !== undefined) {
    const { code, detail } = toJson(reply)
    const isAsRecorded = code === 'job_dead' && String(detail).includes(` is dead: ${dead}: `)
    return isAsRecorded ? undefined : `should be dead of ${dead}, got ${show(reply)}`
  }
  if (reply.status !== 200) return `has no value: ${show(reply)}`
  if (bytes !== undefined) {
    const sha256 = createHash('sha256').update(reply.body).digest('hex')
    return reply.body.length === bytes.length && sha256 === bytes.sha256
      ? undefined
      : `should be ${bytes.length} bytes with SHA-256 ${bytes.sha256}, got ${reply.body.length} with ${sha256}`
  }
  if (atLeast !== undefined) {
    const found = Object(toJson(reply).value) as Record<string, unknown>
    const isEnough = ([name, least]: [string, number]): boolean => Number(found[name]) >= least
    return isDeepStrictEqual(Object.keys(found), Object.keys(atLeast)) && Object.entries(atLeast).every(isEnough)
      ? undefined
      : `should be at least ${JSON.stringify(atLeast)}, got ${show(reply)}`
  }
  return isDeepStrictEqual(toJson(reply).value, value)
    ? undefined
    : `should be ${JSON.stringify(value)}, got ${show(reply)}`
}

function toJson({ body }: Reply): Record<string, unknown> {
  try {
    return JSON.parse(body.toString()) as Record<string, unknown>
  } catch {
    return {}
  }
}

const show = ({ status, body }: Reply): string => `${status} ${body.toString('utf8', 0, 300)}`
