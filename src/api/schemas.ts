/** Schemas that several routes share. */
import { type TSchema, Type } from 'typebox'
import { catalogue, type ProblemCode } from '../errors.ts'
import { jobStates } from '../jobs/admin/inspect.ts'

export const QueueName = Type.String({
  minLength: 1,
  maxLength: 64,
  description: 'Name of a queue',
  default: 'default',
})

/** Registered once, by its $id: every route refers to it. */
export const ProblemBody = Type.Object(
  {
    type: Type.String({ description: 'Where the code is explained' }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: 'What is wrong in this very case' }),
    code: Type.String({ description: 'Stable; see docs/errors.md' }),
    action: Type.String({ description: 'What to do about it' }),
    instance: Type.Optional(Type.String({ description: 'Id of the request, as in the log' })),
  },
  { $id: 'Problem', description: 'RFC 9457 problem' },
)

/** The error replies of a route, by status, naming the codes of each; every route may answer 503 too. */
export function problems(...codes: ProblemCode[]): Record<number, TSchema> {
  const byStatus = new Map<number, ProblemCode[]>()
  for (const code of [...codes, 'redis_unavailable' as const]) {
    const status = catalogue[code].status
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  return Object.fromEntries(
    [...byStatus].map(([status, names]) => [
      status,
      {
        description: names.map(name => `\`${name}\`: ${catalogue[name].title}`).join('; '),
        content: { 'application/problem+json': { schema: { $ref: 'Problem#' } } },
      } as unknown as TSchema,
    ]),
  )
}

const Time = Type.String({ description: 'ISO 8601' })

export const JobSchema = Type.Object(
  {
    workId: Type.String(),
    state: Type.Enum([...jobStates]),
    queue: Type.String(),
    type: Type.String(),
    priority: Type.Integer(),
    attemptsMade: Type.Integer({ description: 'Attempts that ended' }),
    attempts: Type.Integer({ description: 'Attempts that there may be' }),
    lostLeases: Type.Integer({ description: 'How many workers were lost under the job; that spends no attempt' }),
    lostWorkers: Type.Optional(
      Type.Array(
        Type.Object({
          workerId: Type.String(),
          at: Time,
          reason: Type.Enum(['lease ran out', 'worker lost']),
        }),
        {
          description:
            'Those workers: from two on the job gets an exclusive run; with as many as MUSTER_MAX_LOST_LEASES it is dead',
        },
      ),
    ),
    createdAt: Time,
    waitsFor: Type.Optional(
      Type.Object(
        {
          reason: Type.Enum(['queue_paused', 'no_worker', 'no_worker_for_type']),
          explanation: Type.String(),
        },
        { description: 'Only for a single job that no worker can take now' },
      ),
    ),
    dueAt: Type.Optional(Time),
    startedAt: Type.Optional(Type.String({ description: 'Start of the latest attempt' })),
    finishedAt: Type.Optional(Time),
    workerId: Type.Optional(Type.String({ description: 'The worker of the latest attempt' })),
    progress: Type.Optional(Type.Object({ fraction: Type.Number(), note: Type.Optional(Type.String()) })),
    error: Type.Optional(
      Type.Object(
        { code: Type.String(), message: Type.String(), stack: Type.Optional(Type.String()) },
        { description: 'Of the latest attempt that failed' },
      ),
    ),
    collection: Type.Optional(
      Type.Enum(['uncollected', 'leased', 'acked'], {
        description: 'Of a succeeded job: is its result still to be collected?',
      }),
    ),
    params: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  },
  { description: 'A job' },
)

export const WorkIdParams = Type.Object({ workId: Type.String({ description: 'The Work ID' }) })
