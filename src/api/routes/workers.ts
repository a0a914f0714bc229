/** /workers: the wire protocol (docs/worker-protocol.md). */
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import {
  ClaimReply,
  ClaimRequest,
  CompleteReply,
  CompleteRequest,
  type Completion,
  HeartbeatReply,
  HeartbeatRequest,
  type Lease,
  ReturnReply,
  ReturnRequest,
  UploadReply,
} from '../../contract/worker-protocol.ts'
import { Problem } from '../../errors.ts'
import type { Outcome } from '../../jobs/completions.ts'
import { readPayload as readStoredPayload } from '../../jobs/inspect.ts'
import { resultKey, type StoredContent } from '../../jobs/job-data.ts'
import type { LostLease } from '../../jobs/leases.ts'
import { PayloadTooLargeError } from '../../payloads/payload-store.ts'
import { spool } from '../../payloads/spool.ts'
import type { Api, App } from '../api.ts'
import { signalOf } from '../client-signal.ts'
import { openBlob, sendBlob } from '../render-value.ts'
import { problems, WorkIdParams } from '../schemas.ts'

/** A batch of completions with inline values. */
const bodyLimit = 64 * 1024 * 1024
const TokenQuery = Type.Object({ token: Type.String({ minLength: 1, maxLength: 256 }) })
const UploadQuery = Type.Object({ ...TokenQuery.properties, kind: Type.Enum(['bytes', 'json']) })

export function addWorkers(app: App, api: Api): void {
  const { settings, jobs, fleet, store, stopping } = api

  app.post(
    '/workers/heartbeat',
    {
      bodyLimit,
      schema: {
        operationId: 'workerHeartbeat',
        summary: 'Say who is there, extend all leases, hear what to stop',
        tags: ['workers'],
        body: HeartbeatRequest,
        response: { 200: HeartbeatReply, ...problems('request_invalid', 'json_invalid', 'queue_unknown') },
      },
    },
    async (request, reply) => {
      const { worker, state, leases, progress = [], logs = [], waitMs = 0 } = request.body
      const parts = jobs.of(worker.queue)
      const beat = async (): Promise<{ stop: LostLease[]; drain: boolean }> => {
        const [{ drain }, stop] = await Promise.all([
          fleet.registry.heartbeat(worker, state, leases.length),
          parts.leases.extend(leases),
        ])
        return { stop, drain }
      }
      const signal = signalOf(reply, stopping)
      const rung = ringOrTimeout(`worker:${worker.workerId}`, waitMs, signal)
      try {
        let news = await beat()
        const lost = new Set(news.stop.map(({ workId, token }) => `${workId} ${token}`))
        const isHeld = ({ workId, token }: { workId: string; token: string }): boolean =>
          !lost.has(`${workId} ${token}`)
        const mayReport = async (report: { workId: string; token: string }): Promise<boolean> =>
          isHeld(report) && (await parts.leases.holds(report))
        for (const report of progress)
          if (await mayReport(report)) await parts.leases.setProgress(report.workId, report.fraction, report.note)
        for (const report of logs)
          if (await mayReport(report)) await parts.completions.addLogs(report.workId, report.lines)
        if (waitMs > 0 && news.stop.length === 0 && !news.drain) {
          await rung.promise
          if (!signal.aborted) news = await beat()
        }
        return { leaseMs: settings.leaseMs, ...news }
      } finally {
        rung.cancel()
      }
    },
  )

  app.post(
    '/workers/claim',
    {
      schema: {
        operationId: 'workerClaim',
        summary: 'Lease jobs',
        tags: ['workers'],
        body: ClaimRequest,
        response: {
          200: ClaimReply,
          ...problems('request_invalid', 'json_invalid', 'queue_unknown', 'worker_unknown', 'drained_worker'),
        },
      },
    },
    async (request, reply) => {
      const { workerId, queue, max, waitMs = 0 } = request.body
      const { claims } = jobs.of(queue)
      await checkMayClaim(workerId)
      const signal = signalOf(reply, stopping)
      const drained = AbortSignal.any([signal, abortOnDrain(workerId, signal)])
      const leases = await claims.claim({ workerId, max, waitMs, signal: drained })
      if (leases.length > 0) fleet.registry.worked(workerId)
      await giveBackWhenGone(reply, queue, leases)
      return { leaseMs: settings.leaseMs, jobs: leases, drain: false }
    },
  )

  app.post(
    '/workers/complete',
    {
      bodyLimit,
      schema: {
        operationId: 'workerComplete',
        summary: 'Report how attempts ended, and lease the next jobs',
        tags: ['workers'],
        body: CompleteRequest,
        response: { 200: CompleteReply, ...problems('request_invalid', 'json_invalid', 'queue_unknown') },
      },
    },
    async (request, reply) => {
      const { workerId, queue, results, claim = 0 } = request.body
      const { completions } = jobs.of(queue)
      const outcomes = results.map(result => toOutcome(result))
      const may = claim > 0 && !stopping.aborted ? await fleet.registry.mayClaim(workerId) : 'unknown'
      const { kinds, leases } = await completions.complete(workerId, outcomes, may === 'yes' ? claim : 0)
      fleet.registry.worked(workerId)
      await giveBackWhenGone(reply, queue, leases)
      return {
        leaseMs: settings.leaseMs,
        results: results.map(({ workId }, index) => ({ workId, outcome: kinds[index] ?? 'stale' })),
        jobs: leases,
        drain: may === 'drain',
      }
    },
  )

  app.post(
    '/workers/return',
    {
      schema: {
        operationId: 'workerReturn',
        summary: 'Hand jobs back unfinished; no attempt is spent',
        tags: ['workers'],
        body: ReturnRequest,
        response: { 200: ReturnReply, ...problems('request_invalid', 'json_invalid', 'queue_unknown') },
      },
    },
    async ({ body }) => ({ returned: await jobs.of(body.queue).claims.giveBack(body.jobs) }),
  )

  app.get(
    '/workers/payloads/:workId',
    {
      schema: {
        operationId: 'workerPayload',
        summary: 'Stream a payload over the inline limit',
        tags: ['workers'],
        params: WorkIdParams,
        querystring: TokenQuery,
        response: {
          200: {
            description: 'The payload',
            content: { 'application/octet-stream': { schema: {} }, 'application/json': { schema: {} } },
          },
          ...problems('job_not_found', 'lease_lost', 'parameter_invalid', 'parameter_unknown'),
        },
      },
    },
    async ({ params: { workId }, query: { token } }, reply) => {
      const { queue, leases } = jobs.ofWorkId(workId)
      if (!(await leases.holds({ workId, token }))) throw new Problem('lease_lost')
      const blob = (await readStoredPayload(queue, workId))?.blob
      if (blob === undefined) throw new Problem('job_not_found', 'The payload of this job stands in its lease.')
      return sendBlob(reply as unknown as FastifyReply, blob, await openBlob(blob, store)) as never
    },
  )

  void app.register((scope, _options, registered) => {
    // The body is a stream of any size: it goes straight to the store.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
    ;(scope as unknown as App).put(
      '/workers/results/:workId',
      {
        schema: {
          operationId: 'workerUploadResult',
          summary: 'Upload a value over the inline limit; the reply goes into the completion',
          tags: ['workers'],
          params: WorkIdParams,
          querystring: UploadQuery,
          response: {
            200: UploadReply,
            ...problems('job_not_found', 'lease_lost', 'body_too_large', 'parameter_invalid', 'parameter_unknown'),
          },
        },
      },
      async ({ params: { workId }, query: { token, kind }, raw }) => {
        if (!(await jobs.ofWorkId(workId).leases.holds({ workId, token }))) throw new Problem('lease_lost')
        const key = resultKey(workId, token)
        try {
          const spooled = await spool(raw, { inlineBytes: 0, maxBytes: settings.maxBodyBytes, store, key })
          if ('inline' in spooled) return { value: kind === 'json' ? { json: null } : { base64: '' } }
          const { bytes, sha256 } = spooled.blob
          return { value: { blob: { url: key, kind, bytes, sha256 } } }
        } catch (error) {
          if (error instanceof PayloadTooLargeError)
            throw new Problem('body_too_large', `The limit here is ${settings.maxBodyBytes} bytes.`)
          throw error
        }
      },
    )
    registered()
  })

  async function checkMayClaim(workerId: string): Promise<void> {
    if (stopping.aborted) throw new Problem('shutting_down')
    const may = await fleet.registry.mayClaim(workerId)
    if (may === 'unknown') throw new Problem('worker_unknown')
    if (may === 'drain') throw new Problem('drained_worker')
  }

  /** A worker told to go while its claim waits is answered at once. */
  function abortOnDrain(workerId: string, end: AbortSignal): AbortSignal {
    const drained = new AbortController()
    const off = api.bell.on(`worker:${workerId}`, () => {
      void fleet.registry.mayClaim(workerId).then(
        may => may === 'yes' || drained.abort(),
        () => undefined,
      )
    })
    end.addEventListener('abort', off)
    return drained.signal
  }

  /** Jobs that nobody is there to take go back to the queue. */
  async function giveBackWhenGone(
    reply: { raw: FastifyReply['raw'] },
    queue: string,
    leases: readonly Lease[],
  ): Promise<void> {
    if (leases.length > 0 && reply.raw.destroyed) await jobs.of(queue).claims.giveBack(leases)
  }

  function ringOrTimeout(
    topic: string,
    ms: number,
    signal: AbortSignal,
  ): { promise: Promise<void>; cancel: () => void } {
    const done = new AbortController()
    const off = api.bell.on(topic, () => done.abort())
    const promise = delay(ms, undefined, { signal: AbortSignal.any([done.signal, signal]) }).then(
      () => off(),
      () => off(),
    )
    return { promise, cancel: () => done.abort() }
  }
}

function toOutcome({ workId, token, durationMs, logs, value, error }: Completion): Outcome {
  const base = { workId, token, durationMs, ...(logs !== undefined && { logs }) }
  if (error !== undefined) return { ...base, error: error as NonNullable<Outcome['error']> }
  return { ...base, value: toStored(value ?? { json: null }, workId, token) }
}

/** A blob's place is never taken from a worker's word: it is where this very attempt may have put it. */
function toStored(value: NonNullable<Completion['value']>, workId: string, token: string): StoredContent {
  if (!('blob' in value)) return value
  const { kind, bytes, sha256 } = value.blob
  return { blob: { key: resultKey(workId, token), kind, bytes, sha256 } }
}
