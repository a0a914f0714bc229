/** /fleet: who works, why there are so many, and what an operator may ask of the fleet. */
import { Type } from 'typebox'
import { mayUseQueue } from '../../access/roles.ts'
import { Problem } from '../../errors.ts'
import type { JournalEntry } from '../../fleet/journal/journal.ts'
import type { BootTimeline } from '../../fleet/measure/boot-stages.ts'
import type { InstanceView, Interruption as InterruptionView, PoolLoad } from '../../fleet/scaling/snapshot.ts'
import type { WorkerRecord } from '../../fleet/workers/registry.ts'
import type { Api, App } from '../api.ts'
import { Boot, BootMedians, renderBoot } from '../bodies/render-boot.ts'
import { requireQueue } from '../plugins/access.ts'
import { problems } from '../schemas.ts'

const Time = Type.String({ description: 'ISO 8601' })
const iso = (ms: number): string => new Date(ms).toISOString()

const Load = Type.Object({
  waiting: Type.Integer(),
  dueDelayed: Type.Integer({ description: 'Delayed, and due within the target wait' }),
  running: Type.Integer(),
  paused: Type.Boolean(),
  serviceMs: Type.Optional(Type.Number({ description: 'Recent mean run time of a job' })),
  arrivalsPerSecond: Type.Optional(Type.Number({ description: 'Recent mean of jobs that came in' })),
})

const Interruption = Type.Object(
  { kind: Type.Enum(['interruption', 'rebalance']), at: Time },
  { description: 'Its host is being taken away, at that time; or was announced then to be at risk' },
)

const Instance = Type.Object({
  instanceId: Type.String(),
  state: Type.Enum(['booting', 'ready', 'draining', 'terminating']),
  launchedAt: Time,
  slots: Type.Integer(),
  leases: Type.Integer({ description: 'Jobs that its worker holds' }),
  idleSince: Type.Optional(Time),
  market: Type.Optional(Type.Enum(['spot', 'on-demand'])),
  instanceType: Type.Optional(Type.String()),
  zone: Type.Optional(Type.String()),
  hourlyUsd: Type.Optional(Type.Number()),
  interruption: Type.Optional(Interruption),
  boot: Type.Optional(Boot),
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
  interruption: Type.Optional(Interruption),
})

const Pool = Type.Object({
  queue: Type.String(),
  policy: Type.Enum(['target-wait', 'jobs-per-worker', 'fixed']),
  min: Type.Integer(),
  max: Type.Integer(),
  desired: Type.Optional(
    Type.Integer({ description: 'How many workers there should be; absent without an autoscaler' }),
  ),
  reason: Type.Optional(Type.String({ description: 'The rule that had the last word' })),
  explanation: Type.Optional(Type.String({ description: 'Why, with the numbers' })),
  decidedAt: Type.Optional(Time),
  load: Type.Optional(Load),
  boot: Type.Optional(BootMedians),
  instances: Type.Array(Instance),
  workers: Type.Array(Worker),
})

const DecisionsQuery = Type.Object({
  queue: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
  cursor: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'nextCursor of the page before' })),
})

const decisionFields = {
  at: Time,
  queue: Type.String({ description: '* for what concerns no queue' }),
  desired: Type.Integer(),
  reason: Type.String(),
  explanation: Type.String(),
  actions: Type.Array(Type.Record(Type.String(), Type.Unknown()), {
    description: 'launch, drain, terminate, sweep or boot (an instance came up), each with its reason',
  }),
  epoch: Type.Optional(Type.Integer({ description: 'Epoch of the leader lease; absent for manual actions' })),
  decisionId: Type.Optional(
    Type.String({ description: 'Under which its instances were launched, as their tags name it' }),
  ),
  evidence: Type.Optional(
    Type.Record(Type.String(), Type.String(), {
      description: 'By instance that never came up: the end of what it said while it booted',
    }),
  ),
  inputs: Type.Optional(
    Type.Record(Type.String(), Type.Unknown(), {
      description: 'All that the decision saw; times in ms since the epoch',
    }),
  ),
}
const Decision = Type.Object({ id: Type.String(), ...decisionFields }, { description: 'A scaling decision' })
const LatestDecision = Type.Object(decisionFields, { description: 'The latest scaling decision about a pool' })

const EndQuery = Type.Object({
  force: Type.Optional(
    Type.Boolean({ description: 'Now, without waiting for what it runs: that goes back, and no attempt is spent' }),
  ),
})
const EndBody = Type.Union([EndQuery, Type.Null()])

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
    async ({ caller }) => ({
      pools: (await fleet.status())
        .filter(({ queue }) => mayUseQueue(caller, queue))
        .map(({ decidedAt, load, boot, instances, workers, ...pool }) => ({
          ...pool,
          ...(boot !== undefined && { boot }),
          ...(decidedAt !== undefined && { decidedAt: iso(decidedAt) }),
          ...(load !== undefined && { load: load as PoolLoad }),
          instances: instances.map(renderInstance),
          workers: workers.map(renderWorker),
        })),
    }),
  )

  app.get(
    '/fleet/decisions',
    {
      schema: {
        operationId: 'listDecisions',
        summary: 'What the autoscaler decided, and what it saw',
        description:
          'Newest first; only decisions that did something or gave a reason that is news: one that was told in the minute before is left out. The newest 1,000 are kept.',
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
        decisions: page.decisions.map(({ id, ...decision }) => ({ id, ...renderDecision(decision) })),
        ...(page.nextBefore !== undefined && { nextCursor: page.nextBefore }),
      }
    },
  )

  app.get(
    '/fleet/decisions/:decisionId',
    {
      schema: {
        operationId: 'getDecision',
        summary: 'One decision, and all that it saw: enough to take it again',
        tags: ['fleet'],
        params: Type.Object({ decisionId: Type.String({ maxLength: 64 }) }),
        response: { 200: Decision, ...problems('decision_not_found', 'parameter_invalid') },
      },
    },
    async ({ params: { decisionId }, caller }) => {
      const entry = await fleet.decision(decisionId)
      if (entry === undefined) throw new Problem('decision_not_found')
      const { id, ...decision } = entry
      requireQueue(caller, decision.queue)
      return { id, ...renderDecision(decision) }
    },
  )

  app.get(
    '/fleet/pools/:queue/decision',
    {
      schema: {
        operationId: 'getLatestDecision',
        summary: 'The latest decision about a pool, also one that changed nothing',
        tags: ['fleet'],
        params: Type.Object({ queue: Type.String({ maxLength: 64 }) }),
        response: { 200: LatestDecision, ...problems('decision_not_found', 'queue_unknown', 'parameter_invalid') },
      },
    },
    async ({ params: { queue } }) => {
      jobs.queues.get(queue)
      const latest = await fleet.latestDecision(queue)
      if (latest === undefined) throw new Problem('decision_not_found', `Nothing was decided about "${queue}" yet.`)
      const { at, epoch, inputs, decision } = latest
      return renderDecision({ queue, at, epoch, inputs, ...decision })
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
            'fleet_launch_failed',
          ),
        },
      },
    },
    async request => {
      const { queue = 'default', count = 1 } = request.body
      jobs.queues.get(queue)
      request.audited = { target: queue, details: { count } }
      const spawned = await fleet.spawn(queue, count)
      if (spawned.outcome === 'launched') return { instanceIds: [...spawned.instanceIds] }
      if (spawned.outcome === 'at-ceiling')
        throw new Problem('fleet_at_ceiling', `The pool "${queue}" may have ${spawned.max} instances, and has them.`)
      if (spawned.outcome === 'launch-failed') throw new Problem('fleet_launch_failed', spawned.message)
      throw new Problem(spawned.outcome === 'no-provider' ? 'fleet_none' : 'queue_unknown')
    },
  )

  app.post(
    '/fleet/instances/:instanceId/terminate',
    {
      schema: {
        operationId: 'terminateInstance',
        summary: 'End an instance (or a worker, by its id) once it has finished what it runs; with force, now',
        tags: ['fleet'],
        params: Type.Object({ instanceId: Type.String({ maxLength: 128 }) }),
        querystring: EndQuery,
        body: Type.Optional(EndBody),
        response: {
          200: Type.Object({
            instanceId: Type.String(),
            state: Type.Enum(['draining', 'terminating'], {
              description: 'draining: it finishes what it runs, and goes. terminating: it was told to end',
            }),
            returned: Type.Integer({ description: 'Jobs that were taken from it and went back' }),
          }),
          ...problems(
            'instance_not_found',
            'request_invalid',
            'json_invalid',
            'parameter_invalid',
            'parameter_unknown',
          ),
        },
      },
    },
    async request => {
      const { query, body } = request
      const { instanceId } = request.params
      const force = query.force ?? body?.force ?? false
      request.audited = { target: instanceId, details: { force } }
      const ended = await fleet.endInstance(instanceId, { force })
      if (ended.outcome === 'unknown-instance') throw new Problem('instance_not_found')
      return { instanceId: ended.instanceId, state: ended.outcome, returned: ended.returned }
    },
  )
}

const renderInterruption = ({ kind, at }: InterruptionView) => ({ kind, at: iso(at) })

function renderInstance(instance: InstanceView & { readonly boot?: BootTimeline }) {
  const { id, state, launchedAt, slots, leases, idleSince, market, instanceType, zone, hourlyUsd } = instance
  const { interrupted, boot } = instance
  return {
    instanceId: id,
    state,
    launchedAt: iso(launchedAt),
    slots,
    leases,
    ...(idleSince !== undefined && { idleSince: iso(idleSince) }),
    ...(market !== undefined && { market }),
    ...(instanceType !== undefined && { instanceType }),
    ...(zone !== undefined && { zone }),
    ...(hourlyUsd !== undefined && { hourlyUsd }),
    ...(interrupted !== undefined && { interruption: renderInterruption(interrupted) }),
    ...(boot !== undefined && { boot: renderBoot(boot) }),
  }
}

function renderWorker(worker: WorkerRecord) {
  const { workerId, state, slots, leases, types, firstSeenAt, lastSeenAt } = worker
  const { idleSince, instanceId, host, pid, version, drain, interruption } = worker
  return {
    workerId,
    state,
    slots,
    leases,
    types: [...types],
    firstSeenAt: iso(firstSeenAt),
    lastSeenAt: iso(lastSeenAt),
    ...(idleSince !== undefined && { idleSince: iso(idleSince) }),
    ...(instanceId !== undefined && { instanceId }),
    ...(host !== undefined && { host }),
    ...(pid !== undefined && { pid }),
    ...(version !== undefined && { version }),
    ...(drain !== undefined && { drainReason: drain.reason }),
    ...(interruption !== undefined && { interruption: renderInterruption(interruption) }),
  }
}

const renderDecision = ({ at, actions, bootDiagnostics, inputs, ...decision }: JournalEntry) => ({
  ...decision,
  at: iso(at),
  actions: actions.map(action => ({ ...action })),
  ...(bootDiagnostics !== undefined && { evidence: { ...bootDiagnostics } }),
  ...(inputs !== undefined && { inputs: { ...inputs } }),
})
