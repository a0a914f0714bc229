/** /jobs: look at jobs, read their results and logs, cancel and retry them. */
import { Type } from 'typebox'
import type { Caller } from '../../access/roles.ts'
import { Problem } from '../../errors.ts'
import { jobStates, readData, readLogs, readResult, viewJob } from '../../jobs/admin/inspect.ts'
import type { Api, App } from '../api.ts'
import { renderPayload, sendValue, unwrapValues } from '../bodies/render-value.ts'
import { JobSchema, problems, WorkIdParams } from '../schemas.ts'
import { whyWaiting } from '../why-waiting.ts'

const ListQuery = Type.Object({
  state: Type.Optional(Type.Enum([...jobStates])),
  queue: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'Only this queue; all when left out' })),
  type: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100 })),
  cursor: Type.Optional(Type.String({ minLength: 1, maxLength: 500, description: 'nextCursor of the page before' })),
})

const JobPage = Type.Object({
  jobs: Type.Array(JobSchema),
  nextCursor: Type.Optional(
    Type.String({ description: 'Absent on the last page; a page may be short (even empty) and still have a next one' }),
  ),
})

const LogQuery = Type.Object({
  start: Type.Optional(Type.Integer({ minimum: 0, default: 0, description: 'Lines to pass over' })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, default: 1000 })),
})

const Logs = Type.Object({
  workId: Type.String(),
  lines: Type.Array(Type.String()),
  count: Type.Integer({ description: 'Lines kept in all; the newest 1,000 are' }),
})

const Cancelled = Type.Object({ workId: Type.String(), state: Type.Literal('cancelled') })
const Retried = Type.Object({ workId: Type.String(), state: Type.Literal('waiting') })

const JobQuery = Type.Object({
  include: Type.Optional(
    Type.Enum(['payload'], {
      description: 'payload: what was submitted, too. For read, operate, and the key that put the job in',
    }),
  ),
})

const JobWithPayload = Type.Object(
  {
    ...JobSchema.properties,
    payload: Type.Optional(
      Type.Object(
        {
          json: Type.Optional(Type.Unknown()),
          base64: Type.Optional(Type.String({ description: 'Bytes' })),
          blob: Type.Optional(
            Type.Object(
              { kind: Type.Enum(['bytes', 'json']), bytes: Type.Integer(), sha256: Type.String() },
              { description: 'It is over the inline limit, and not shown' },
            ),
          ),
        },
        { description: 'With include=payload; exactly one of the three' },
      ),
    ),
  },
  { description: 'A job' },
)

export function addJobs(app: App, api: Api): void {
  const { jobs, store } = api
  app.get(
    '/jobs',
    {
      schema: {
        operationId: 'listJobs',
        summary: 'List jobs',
        description: 'Running, waiting, delayed, then finished ones, newest first.',
        tags: ['jobs'],
        querystring: ListQuery,
        response: {
          200: JobPage,
          ...problems('parameter_invalid', 'parameter_unknown', 'cursor_invalid', 'queue_unknown'),
        },
      },
    },
    async request => {
      const { queue, limit = 100, ...filters } = request.query
      return { ...(await jobs.list(queue, { limit, ...filters })) }
    },
  )

  app.get(
    '/jobs/:workId',
    {
      schema: {
        operationId: 'getJob',
        summary: 'Look at a job',
        tags: ['jobs'],
        params: WorkIdParams,
        querystring: JobQuery,
        response: { 200: JobWithPayload, ...problems('job_not_found', 'parameter_invalid', 'parameter_unknown') },
      },
      onSend: unwrapValues,
    },
    async ({ caller, params: { workId }, query }) => {
      const { queue } = jobs.ofWorkId(workId)
      const job = await viewJob(queue, workId)
      const waitsFor = await whyWaiting(api, job)
      const view = { ...job, ...(waitsFor !== undefined && { waitsFor }) }
      if (query.include === undefined) return view
      const data = await readData(queue, workId)
      if (data === undefined) return view
      if (!caller.roles.has('read')) requireOwner(caller, data.owner)
      return { ...view, payload: renderPayload(data.payload) }
    },
  )

  app.get(
    '/jobs/:workId/result',
    {
      schema: {
        operationId: 'getResult',
        summary: 'Read the result of a job',
        description: 'JSON values as {"workId", "value"}, bytes as they are. Reading does not collect.',
        tags: ['jobs'],
        params: WorkIdParams,
        response: {
          200: {
            description: 'The value',
            content: {
              'application/json': { schema: Type.Object({ workId: Type.String(), value: Type.Unknown() }) },
              'application/octet-stream': { schema: {} },
            },
          },
          ...problems('job_not_found', 'result_not_ready', 'job_dead', 'job_cancelled'),
        },
      },
    },
    async ({ params: { workId } }, reply) => {
      const result = await readResult(jobs.ofWorkId(workId).queue, workId)
      if ('failure' in result) {
        const { code, message } = result.failure
        if (code === 'cancelled') throw new Problem('job_cancelled', `The job ${workId} was cancelled.`)
        throw new Problem('job_dead', `The job ${workId} is dead: ${code}: ${message}`)
      }
      // Streams and ready-made text: nothing for the serializer to do.
      return (await sendValue(reply as never, workId, result.value, store)) as never
    },
  )

  app.get(
    '/jobs/:workId/logs',
    {
      schema: {
        operationId: 'getLogs',
        summary: 'Read the log of a job',
        tags: ['jobs'],
        params: WorkIdParams,
        querystring: LogQuery,
        response: { 200: Logs, ...problems('job_not_found', 'parameter_invalid', 'parameter_unknown') },
      },
    },
    async ({ params: { workId }, query: { start = 0, limit = 1000 } }) => ({
      workId,
      ...(await readLogs(jobs.ofWorkId(workId).queue, workId, start, limit)),
    }),
  )

  app.delete(
    '/jobs/:workId',
    {
      schema: {
        operationId: 'cancelJob',
        summary: 'Cancel a job',
        description:
          'Also a running one: its lease ends at once, its worker stops it. Cancelling twice is fine. A key without the role operate cancels only what it put in.',
        tags: ['jobs'],
        params: WorkIdParams,
        response: { 200: Cancelled, ...problems('job_not_found', 'job_finished') },
      },
    },
    async ({ caller, params: { workId } }) => {
      await jobs.cancel(workId, owner => requireOwner(caller, owner))
      return { workId, state: 'cancelled' as const }
    },
  )

  app.post(
    '/jobs/:workId/retry',
    {
      schema: {
        operationId: 'retryJob',
        summary: 'Replay a dead job',
        description: 'Puts it back in line with all its attempts before it.',
        tags: ['jobs'],
        params: WorkIdParams,
        response: { 200: Retried, ...problems('job_not_found', 'job_not_dead', 'job_cancelled') },
      },
    },
    async ({ params: { workId } }) => {
      await jobs.retry(workId)
      return { workId, state: 'waiting' as const }
    },
  )
}

/** @throws Problem forbidden, unless the caller may operate, or put the job in itself */
function requireOwner(caller: Caller, owner: string | undefined): void {
  if (caller.roles.has('operate') || owner === caller.id) return
  throw new Problem('forbidden', 'Another caller put this job in: this takes the role "operate".')
}
