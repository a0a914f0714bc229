/** /fleet: who works, why there are so many, and what an operator may ask of the fleet. */
import { Type } from 'typebox'
import { Problem } from '../../errors.ts'
import type { InstanceView, PoolLoad } from '../../fleet/snapshot.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

const Time = Type.String({ description: 'ISO 8601' })
const iso = (ms: number): string => new Date(ms).toISOString()

const Load = Type.Object({
  waiting: Type.Integer(),
  dueDelayed: Type.Integer({ description: 'Delayed, and due within the target wait' }),
  running: Type.Integer(),
  paused: Type.Boolean(),
  serviceMs: Type.Optional(Type.Number({ description: 'Recent mean run time of a job' })),
})

const Instance = Type.Object({
  instanceId: Type.String(),
  state: Type.Enum(['booting', 'ready', 'draining', 'terminating']),
  launchedAt: Time,
  slots: Type.Integer(),
  leases: Type.Integer({ description: 'Jobs that its worker holds' }),
  idleSince: Type.Optional(Time),
})

const Worker = Type.Object({
  workerId: Type.String(),
  instanceId: Type.Optional(Type.String()),
  state: Type.Enum(['ready', 'draining', 'stopped']),
  slots: Type.Integer(),
  leases: Type.Integer(),
  types: Type.Array(Type.String()),
  host: Type.Optional(Type.String()),
  pid: Type.Optional(Type.Integer()),
  version: Type.Optional(Type.String()),
  firstSeenAt: Time,
  lastSeenAt: Time,
  idleSince: Type.Optional(Time),
  drainReason: Type.Optional(Type.String()),
})

const Pool = Type.Object({
  queue: Type.String(),
  policy: Type.Enum(['target-wait', 'jobs-per-worker', 'fixed']),
  min: Type.Integer(),
  max: Type.Integer(),
  wanted: Type.Optional(
    Type.Integer({ description: 'How many workers there should be; absent without an autoscaler' }),
  ),
  reason: Type.Optional(Type.String({ description: 'The rule that had the last word' })),
  sentence: Type.Optional(Type.String({ description: 'Why, with the numbers' })),
  decidedAt: Type.Optional(Time),
  load: Type.Optional(Load),
  instances: Type.Array(Instance),
  workers: Type.Array(Worker),
})

const DecisionsQuery = Type.Object({
  queue: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
  cursor: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'nextCursor of the page before' })),
})

const Decision = Type.Object(
  {
    id: Type.String(),
    at: Time,
    queue: Type.String(),
    wanted: Type.Integer(),
    reason: Type.String(),
    sentence: Type.String(),
    actions: Type.Array(Type.Record(Type.String(), Type.Unknown()), {
      description: 'launch, drain or terminate, each with its reason',
    }),
    epoch: Type.Optional(
      Type.Integer({ description: "Of the autoscaler's lease; absent for what somebody asked for" }),
    ),
    inputs: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), {
        description: 'All that the decision saw; times in ms since the epoch',
      }),
    ),
  },
  { description: 'A scaling decision' },
)

const SpawnBody = Type.Object(
  {
    queue: Type.Optional(Type.String({ minLength: 1, maxLength: 64, default: 'default' })),
    count: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 1 })),
  },
  { additionalProperties: false },
)

export function addFleet(app: App, { fleet, jobs }: Api): void {
  app.get(
    '/fleet',
    {
      schema: {
        operationId: 'getFleet',
        summary: 'Pools, instances and workers, and why there are so many',
        tags: ['fleet'],
        response: { 200: Type.Object({ pools: Type.Array(Pool) }), ...problems() },
      },
    },
    async () => ({
      pools: (await fleet.status()).map(({ decidedAt, load, instances, workers, ...pool }) => ({
        ...pool,
        ...(decidedAt !== undefined && { decidedAt: iso(decidedAt) }),
        ...(load !== undefined && { load: load as PoolLoad }),
        instances: instances.map(renderInstance),
        workers: workers.map(
          ({
            drain,
            queue: _,
            firstSeenAt,
            lastSeenAt,
            idleSince,
            types,
            instanceId,
            host,
            pid,
            version,
            ...worker
          }) => ({
            ...worker,
            ...(instanceId !== undefined && { instanceId }),
            ...(host !== undefined && { host }),
            ...(pid !== undefined && { pid }),
            ...(version !== undefined && { version }),
            types: [...types],
            firstSeenAt: iso(firstSeenAt),
            lastSeenAt: iso(lastSeenAt),
            ...(idleSince !== undefined && { idleSince: iso(idleSince) }),
            ...(drain !== undefined && { drainReason: drain.reason }),
          }),
        ),
      })),
    }),
  )

  app.get(
    '/fleet/decisions',
    {
      schema: {
        operationId: 'listDecisions',
        summary: 'What the autoscaler decided, and what it saw',
        description: 'Newest first; only decisions that did something or gave a new reason. The newest 1,000 are kept.',
        tags: ['fleet'],
        querystring: DecisionsQuery,
        response: {
          200: Type.Object({ decisions: Type.Array(Decision), nextCursor: Type.Optional(Type.String()) }),
          ...problems('parameter_invalid', 'parameter_unknown', 'cursor_invalid', 'queue_unknown'),
        },
      },
    },
    async ({ query: { queue, limit = 50, cursor } }) => {
      if (queue !== undefined) jobs.queues.get(queue)
      const page = await fleet.decisions({
        limit,
        ...(cursor !== undefined && { before: cursor }),
        ...(queue !== undefined && { queue }),
      })
      return {
        decisions: page.decisions.map(({ at, actions, inputs, ...decision }) => ({
          ...decision,
          at: iso(at),
          actions: actions.map(action => ({ ...action })),
          ...(inputs !== undefined && { inputs: { ...inputs } }),
        })),
        ...(page.nextBefore !== undefined && { nextCursor: page.nextBefore }),
      }
    },
  )

  app.post(
    '/fleet/spawn',
    {
      schema: {
        operationId: 'spawnInstances',
        summary: 'Launch instances by hand, within the ceiling; they go when they are idle',
        tags: ['fleet'],
        body: SpawnBody,
        response: {
          200: Type.Object({ instanceIds: Type.Array(Type.String()) }),
          ...problems(
            'request_invalid',
            'parameter_unknown',
            'json_invalid',
            'queue_unknown',
            'fleet_none',
            'fleet_at_ceiling',
          ),
        },
      },
    },
    async ({ body: { queue = 'default', count = 1 } }) => {
      jobs.queues.get(queue)
      const spawned = await fleet.spawn(queue, count)
      if (spawned.outcome === 'launched') return { instanceIds: [...spawned.instanceIds] }
      if (spawned.outcome === 'at-ceiling')
        throw new Problem('fleet_at_ceiling', `The pool "${queue}" may have ${spawned.max} instances, and has them.`)
      throw new Problem(spawned.outcome === 'no-provider' ? 'fleet_none' : 'queue_unknown')
    },
  )

  app.post(
    '/fleet/instances/:instanceId/terminate',
    {
      schema: {
        operationId: 'terminateInstance',
        summary: 'End an instance (or a worker, by its id) once it has finished what it runs',
        tags: ['fleet'],
        params: Type.Object({ instanceId: Type.String() }),
        response: {
          200: Type.Object({ instanceId: Type.String(), state: Type.Literal('draining') }),
          ...problems('instance_not_found'),
        },
      },
    },
    async ({ params: { instanceId } }) => {
      const { outcome } = await fleet.drainInstance(instanceId)
      if (outcome === 'unknown-instance') throw new Problem('instance_not_found')
      return { instanceId, state: 'draining' as const }
    },
  )
}

const renderInstance = ({ id, state, launchedAt, slots, leases, idleSince }: InstanceView) => ({
  instanceId: id,
  state,
  launchedAt: iso(launchedAt),
  slots,
  leases,
  ...(idleSince !== undefined && { idleSince: iso(idleSince) }),
})
