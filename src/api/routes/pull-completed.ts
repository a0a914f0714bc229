/** POST /pullCompleted and its ack: hands out results, oldest first. */
import type { FastifyReply } from 'fastify'
import { nanoid } from 'nanoid'
import { Type } from 'typebox'
import { Problem } from '../../errors.ts'
import { replyLeaseMs } from '../../jobs/collect/acks.ts'
import { mayHold, type Results } from '../../jobs/collect/results.ts'
import { unwrapRawJson } from '../../jobs/job-data.ts'
import { queueOfWorkId } from '../../jobs/work-id.ts'
import type { Api, App } from '../api.ts'
import { renderPulled } from '../bodies/render-value.ts'
import { signalOf, whenSent } from '../client-connection.ts'
import { requireQueue } from '../plugins/access.ts'
import { problems, QueueName } from '../schemas.ts'

const mebibyte = 1024 * 1024

const Query = Type.Object({
  top: Type.Integer({ minimum: 1, maximum: 10_000, description: 'At most this many' }),
  queue: Type.Optional(QueueName),
  waitMs: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 60_000,
      default: 0,
      description: 'Long poll: how long to wait for the first one',
    }),
  ),
  leaseMs: Type.Optional(
    Type.Integer({
      minimum: 1000,
      maximum: 86_400_000,
      description: 'Hold the results this long until POST /pullCompleted/ack; they are handed out again afterwards',
    }),
  ),
  maxBytes: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 256 * mebibyte,
      default: 16 * mebibyte,
      description:
        'About this much of values at most, less when many replies wait to be read; the first result comes at any size',
    }),
  ),
  failed: Type.Optional(
    Type.Enum(['include', 'exclude'], {
      default: 'exclude',
      description: 'include: dead jobs too, with Error in place of Value',
    }),
  ),
})

const Entry = Type.Object(
  {
    'Work ID': Type.String(),
    Value: Type.Optional(Type.Unknown({ description: 'The value; of sha512, the digest in hex' })),
    Encoding: Type.Optional(Type.Literal('base64', { description: 'The value is bytes' })),
    'Value URL': Type.Optional(Type.String({ description: 'The value is over the inline limit: get it here' })),
    'Value Bytes': Type.Optional(Type.Integer()),
    Error: Type.Optional(
      Type.Object({ code: Type.String(), message: Type.String() }, { description: 'Of a dead job' }),
    ),
  },
  { description: 'One result' },
)

const AckBody = Type.Object(
  {
    leaseId: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 200,
        description:
          'From the header Muster-Lease-Id: acks only what is still held under it; without workIds, all of it',
      }),
    ),
    workIds: Type.Optional(
      Type.Array(Type.String({ maxLength: 128 }), {
        minItems: 1,
        maxItems: 10_000,
        description: 'Without leaseId: whichever lease holds them',
      }),
    ),
  },
  { additionalProperties: false, minProperties: 1 },
)

const AckReply = Type.Object({
  acked: Type.Integer(),
  notHeld: Type.Array(Type.String(), {
    description: 'Their lease ran out (they are handed out again), or they were acked before',
  }),
})

export function addPullCompleted(app: App, { jobs, acks, access, stopping }: Api): void {
  app.post(
    '/pullCompleted',
    {
      schema: {
        operationId: 'pullCompleted',
        summary: 'Collect results',
        description:
          'Oldest first, each handed out once. Without leaseMs the results are acked by being sent: they come back only when the node sees the reply break off. They stay readable at /jobs/{workId}/result.',
        tags: ['work'],
        querystring: Query,
        response: { 200: Type.Array(Entry), ...problems('parameter_invalid', 'parameter_unknown', 'queue_unknown') },
      },
      // The reply may be large and is plain: no second pass over it.
      serializerCompiler: () => data => unwrapRawJson(JSON.stringify(data)),
    },
    async (request, reply) => {
      const { top, queue = 'default', waitMs = 0, leaseMs, maxBytes = 16 * mebibyte, failed } = request.query
      const { results } = jobs.of(queue)
      const signal = signalOf(reply, stopping)
      const leaseId = `${queue}/${nanoid()}`
      const includeFailed = failed === 'include'
      const lease = { leaseId, leaseMs: leaseMs ?? replyLeaseMs }
      const budget = { reserve: () => request.stay.reserve(maxBytes), release: () => request.stay.hold(0) }
      const pulled = await results.pull({ ...lease, top, waitMs, budget, includeFailed, signal }).catch(error => {
        // No client holds that lease.
        if (mayHold(error)) acks.abandon(results, leaseId)
        throw error
      })
      if (pulled.length === 0) return []
      const workIds = pulled.map(({ workId }) => workId)
      await access.requireStill(request.caller, request.headers.authorization).catch(error => {
        acks.release(results, leaseId, workIds)
        throw error
      })
      if (leaseMs !== undefined) {
        void reply.header('muster-lease-id', leaseId)
        settleWhenSent(reply, results, leaseId, workIds, false)
        return pulled.map(renderPulled)
      }
      const held = new Set(await markSending(results, leaseId, workIds))
      settleWhenSent(reply, results, leaseId, [...held], true)
      return pulled.filter(({ workId }) => held.has(workId)).map(renderPulled)
    },
  )

  app.post(
    '/pullCompleted/ack',
    {
      schema: {
        operationId: 'ackCompleted',
        summary: 'Let leased results go',
        tags: ['work'],
        body: AckBody,
        response: {
          200: AckReply,
          ...problems('request_invalid', 'parameter_unknown', 'json_invalid', 'lease_not_found'),
        },
      },
    },
    async request => {
      const { leaseId, workIds } = request.body
      if (leaseId !== undefined) requireQueue(request.caller, leaseId.split('/')[0] as string)
      for (const workId of workIds ?? []) requireQueue(request.caller, queueOfWorkId(workId) ?? 'default')
      if (leaseId === undefined) return await ackByWorkId(workIds ?? [])
      const queue = jobs.queues.find(leaseId.split('/')[0] as string)
      if (queue === undefined) throw new Problem('lease_not_found')
      const { results } = jobs.of(queue.name)
      const wanted = workIds ?? (await results.heldUnder(leaseId))
      if (wanted.length === 0)
        throw new Problem(
          'lease_not_found',
          'Nothing is held under this lease: its time is up, or all of it was acked.',
        )
      const held = new Set(await results.ack(leaseId, wanted))
      return { acked: held.size, notHeld: wanted.filter(workId => !held.has(workId)) }
    },
  )

  async function ackByWorkId(workIds: readonly string[]): Promise<{ acked: number; notHeld: string[] }> {
    const byResults = new Map<Results, string[]>()
    for (const workId of workIds) {
      const { results } = jobs.ofWorkId(workId)
      byResults.set(results, [...(byResults.get(results) ?? []), workId])
    }
    const held = new Set<string>()
    for (const [results, some] of byResults) for (const workId of await results.ack('*', some)) held.add(workId)
    return { acked: held.size, notHeld: workIds.filter(workId => !held.has(workId)) }
  }

  /**
   * Before the first byte is sent it is kept that it was: a result that a client has is not handed out again, even when
   * this node and Redis' primary are lost in the next moment.
   */
  async function markSending(results: Results, leaseId: string, workIds: readonly string[]): Promise<string[]> {
    try {
      return await results.markSending(leaseId, workIds)
    } catch (error) {
      acks.abandon(results, leaseId)
      throw error
    }
  }

  /**
   * Acks when the last byte was handed to the network, unless the lease is the client's own; releases when it went away
   * before.
   */
  function settleWhenSent(
    reply: FastifyReply,
    results: Results,
    leaseId: string,
    workIds: readonly string[],
    isOurs: boolean,
  ): void {
    whenSent(reply, wasSent => {
      if (!wasSent) acks.release(results, leaseId, workIds)
      else if (isOurs) acks.add(results, leaseId, workIds)
    })
  }
}
