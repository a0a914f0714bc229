/** /queues: their figures; pause, resume, drain; replay what is dead. */
import { Type } from 'typebox'
import { mayUseQueue } from '../../access/roles.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

const count = Type.Integer({ minimum: 0 })

const QueueSchema = Type.Object(
  {
    queue: Type.String(),
    state: Type.Enum(['running', 'paused', 'draining'], {
      description: 'paused: nothing is claimed; draining: nothing new is taken, what is there is finished',
    }),
    waiting: count,
    delayed: count,
    running: count,
    succeeded: count,
    dead: count,
    cancelled: count,
    uncollected: count,
    leased: Type.Integer({ minimum: 0, description: 'Results under a lease that are not acked' }),
  },
  { description: 'A queue' },
)

const Params = Type.Object({ queue: Type.String({ description: 'Name of the queue' }) })
const RetryQuery = Type.Object({
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 10_000, default: 1000, description: 'At most this many, oldest first' }),
  ),
})

export function addQueues(app: App, { jobs }: Api): void {
  const view = async (queue: string) => {
    const { control } = jobs.of(queue)
    const [state, counts] = await Promise.all([control.state(), control.counts()])
    return { queue, state, ...counts }
  }

  app.get(
    '/queues',
    {
      schema: {
        operationId: 'listQueues',
        summary: 'List queues',
        tags: ['queues'],
        response: { 200: Type.Object({ queues: Type.Array(QueueSchema) }), ...problems() },
      },
    },
    async ({ caller }) => {
      const names = jobs.queues.names().filter(name => mayUseQueue(caller, name))
      return { queues: await Promise.all(names.map(view)) }
    },
  )

  app.get(
    '/queues/:queue',
    {
      schema: {
        operationId: 'getQueue',
        summary: 'Look at a queue',
        tags: ['queues'],
        params: Params,
        response: { 200: QueueSchema, ...problems('queue_unknown') },
      },
    },
    async ({ params }) => await view(params.queue),
  )

  const verbs = {
    pause: 'Claim nothing from now on; new jobs are still taken',
    resume: 'End a pause and a drain',
    drain: 'Take no new jobs from now on; finish those that are there',
  } as const
  for (const verb of ['pause', 'resume', 'drain'] as const) {
    app.post(
      `/queues/:queue/${verb}`,
      {
        schema: {
          operationId: `${verb}Queue`,
          summary: verbs[verb],
          tags: ['queues'],
          params: Params,
          response: { 200: QueueSchema, ...problems('queue_unknown') },
        },
      },
      async ({ params: { queue } }) => {
        await jobs.of(queue).control[verb]()
        return await view(queue)
      },
    )
  }

  app.post(
    '/queues/:queue/retry',
    {
      schema: {
        operationId: 'retryQueue',
        summary: 'Replay the dead jobs of a queue',
        tags: ['queues'],
        params: Params,
        querystring: RetryQuery,
        response: {
          200: Type.Object({ queue: Type.String(), retried: count }),
          ...problems('queue_unknown', 'parameter_invalid', 'parameter_unknown'),
        },
      },
    },
    async ({ params: { queue }, query: { limit = 1000 } }) => ({
      queue,
      retried: await jobs.retryAllDead(queue, limit),
    }),
  )
}
