/** /workers: the wire protocol (docs/worker-protocol.md). */
import { setTimeout as delay } from 'node:timers/promises'
import type { Caller } from '../../access/roles.ts'
import {
  ClaimReply,
  ClaimRequest,
  CompleteReply,
  CompleteRequest,
  type Completion,
  HeartbeatReply,
  HeartbeatRequest,
  ReturnReply,
  ReturnRequest,
} from '../../contract/worker-protocol.ts'
import { Problem } from '../../errors.ts'
import { Cordon, refuse } from '../../fleet/workers/cordon.ts'
import { resultKey, type StoredContent } from '../../jobs/job-data.ts'
import { type Outcome, typeUnsupported } from '../../jobs/run/completions.ts'
import type { LostLease } from '../../jobs/run/leases.ts'
import type { Api, App } from '../api.ts'
import { printExact } from '../bodies/json-text.ts'
import { unwrapValues } from '../bodies/render-value.ts'
import { signalOf } from '../client-connection.ts'
import { requireInstance, requireIntroducer, requireWorker } from '../plugins/worker-authorization.ts'
import { problems } from '../schemas.ts'
import { addWorkerBlobs } from './worker-blobs.ts'

/**
 * JSON is parsed in the event loop, in one piece: a batch of completions with small values. Large values are uploaded.
 */
const bodyLimit = 4 * 1024 * 1024
/** How long a claim waits on a node that is about to stop. */
const leavingWaitMs = 200
/**
 * Ends the open claims of a worker that goes by itself, or that runs other types now; its heartbeat (`worker:`) stays
 * open.
 */
const claimsOf = (workerId: string): string => `claims:${workerId}`

/** Worker tokens name their worker; of those who come with a key Redis knows whom they introduced. */
const keyOf = ({ kind, id }: Caller): string => (kind === 'key' ? id : '')

export function addWorkers(app: App, api: Api): void {
  const { settings, jobs, fleet, stopping } = api
  const cordon = new Cordon(api)

  app.post(
    '/workers/heartbeat',
    {
      bodyLimit,
      schema: {
        operationId: 'workerHeartbeat',
        summary: 'Say who is there, extend all leases, hear what to stop',
        tags: ['workers'],
        body: HeartbeatRequest,
        response: {
          200: HeartbeatReply,
          ...problems('request_invalid', 'json_invalid', 'queue_unknown', 'body_too_large'),
        },
      },
    },
    async (request, reply) => {
      const { worker, state, leases, progress = [], logs = [], waitMs = 0, interruption } = request.body
      const { caller } = request
      requireInstance(caller, worker, [...leases, ...progress, ...logs])
      const parts = jobs.of(worker.queue)
      const beat = async (): Promise<{ stop: LostLease[]; drain: boolean }> => {
        const isBound = caller.worker !== undefined
        const registered = fleet.registry.heartbeat(worker, state, leases.length, interruption, isBound, keyOf(caller))
        // Only Redis knows whether the worker of a first token, or of a key, is its own: nothing else is done for it
        // before.
        if (caller.kind === 'key' || (isBound && caller.worker.workerId === undefined))
          requireOwnWorker(await registered)
        const [own, stop] = await Promise.all([
          registered.then(requireOwnWorker),
          parts.leases.extend(leases),
          parts.leases.heardFrom(worker.workerId),
        ])
        if (own.typesChanged) api.notifier.notify(claimsOf(worker.workerId))
        return { stop, drain: own.drain }
      }
      const signal = signalOf(reply, stopping)
      const notification = notificationOrTimeout(`worker:${worker.workerId}`, waitMs, signal)
      const forget = api.handlers.onChange(notification.cancel)
      try {
        let news = await beat()
        if (state !== 'ready') api.notifier.notify(claimsOf(worker.workerId))
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
          await notification.promise
          if (!signal.aborted) {
            await api.access.requireStill(caller, request.headers.authorization)
            news = await beat()
          }
        }
        const token = api.access.renew(caller, worker.workerId)
        const handlers = api.handlers.current?.digest
        return {
          ...{ leaseMs: settings.leaseMs, ...news },
          ...(handlers !== undefined && { handlers }),
          ...(token !== undefined && { token }),
        }
      } finally {
        forget()
        notification.cancel()
      }
    },
  )

  app.post(
    '/workers/claim',
    {
      onSend: unwrapValues,
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
      requireWorker(request.caller, workerId)
      const { claims } = jobs.of(queue)
      // Nothing more is handed out from here; the worker finds another node, or this one when it is back.
      if (stopping.aborted) {
        // Not at once: who knows only this node asks again and again meanwhile.
        await delay(Math.min(waitMs, leavingWaitMs))
        return { leaseMs: settings.leaseMs, jobs: [], drain: false }
      }
      const types = await Promise.all([typesOf(request.body), cordon.check(workerId, keyOf(request.caller))]).then(
        ([own]) => own,
        (error: unknown) => {
          // One that may not claim asks for nothing; one whose question Redis leaves open does ask.
          if (!(error instanceof Problem)) claims.activity.asked(request.body.types)
          throw error
        },
      )
      if (!runsCurrent(request.body)) return { leaseMs: settings.leaseMs, jobs: [], drain: false }
      const signal = signalOf(reply, stopping)
      const outdated = AbortSignal.any([signal, abortOnNews(request.body, types, signal)])
      const leases = await claims.claim({ workerId, types, max, waitMs, signal: outdated })
      refuse(await cordon.mayDeliver(workerId, queue, leases, reply))
      if (leases.length > 0) fleet.registry.worked(workerId)
      return { leaseMs: settings.leaseMs, jobs: leases, drain: false }
    },
  )

  app.post(
    '/workers/complete',
    {
      bodyLimit,
      config: { wantsExactNumbers: true },
      onSend: unwrapValues,
      schema: {
        operationId: 'workerComplete',
        summary: 'Report how attempts ended, and lease the next jobs',
        tags: ['workers'],
        body: CompleteRequest,
        response: {
          200: CompleteReply,
          ...problems('request_invalid', 'json_invalid', 'queue_unknown', 'body_too_large'),
        },
      },
    },
    async (request, reply) => {
      const { workerId, queue, results, claim = 0 } = request.body
      requireWorker(request.caller, workerId, results)
      await requireIntroducer(request.caller, workerId, fleet.registry)
      const { completions } = jobs.of(queue)
      const noteUnsupported = async (outcome: Outcome): Promise<void> => {
        const type = await completions.typeOfHeld(outcome)
        if (type !== undefined) await fleet.registry.noteUnsupported(workerId, type)
      }
      const exact = (request.exactBody as ExactCompletions | undefined)?.results
      const outcomes = results.map((result, index) => toOutcome(result, exact?.[index]))
      // Before they go back to the queue: the next claim of this worker is not to get them again.
      for (const outcome of outcomes) if (outcome.error?.code === typeUnsupported) await noteUnsupported(outcome)
      const mayClaim = claim > 0 && !stopping.aborted
      const [first, types] = mayClaim
        ? await Promise.all([cordon.look(workerId, keyOf(request.caller)), typesOf(request.body)])
        : (['unknown', []] as const)
      const claimant = { workerId, types }
      // Looked at last: from here on nothing is waited for before the jobs are leased.
      const isAllowed = first === 'yes' && runsCurrent(request.body)
      const { kinds, leases } = await completions.complete(claimant, outcomes, isAllowed ? claim : 0)
      fleet.registry.worked(workerId)
      const may = first === 'yes' ? await cordon.mayDeliver(workerId, queue, leases, reply) : first
      return {
        leaseMs: settings.leaseMs,
        results: results.map(({ workId }, index) => ({ workId, outcome: kinds[index] ?? 'stale' })),
        jobs: may === 'yes' ? leases : [],
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
    async ({ body, caller }) => {
      requireWorker(caller, body.workerId, body.jobs)
      await requireIntroducer(caller, body.workerId, fleet.registry)
      const { queue, claims } = jobs.of(body.queue)
      return { returned: await queue.confirm(() => claims.requeue(body.jobs)) }
    },
  )

  void app.register((scope, _options, registered) => {
    // Bodies are streams of any size: they go straight to where they are kept.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
    addWorkerBlobs(scope as unknown as App, api)
    registered()
  })

  /** What this worker may be given now: what the call names, or else its latest heartbeat, if it runs that. */
  async function typesOf(body: ClaimRequest | CompleteRequest): Promise<readonly string[]> {
    const declared = await fleet.registry.typesOf(body.workerId)
    return body.types === undefined ? declared : body.types.filter(type => declared.includes(type))
  }

  /** A job that comes after a deployment runs on what was deployed: until a worker has it, it is given none. */
  function runsCurrent({ handlers }: ClaimRequest | CompleteRequest): boolean {
    const current = api.handlers.current?.digest
    return handlers === undefined || current === undefined || handlers === current
  }

  /** A worker that is told to go, or that runs other types or handlers, while its claim waits is answered at once. */
  function abortOnNews(body: ClaimRequest, types: readonly string[], end: AbortSignal): AbortSignal {
    const { workerId } = body
    const news = new AbortController()
    const look = (): void => {
      void Promise.all([cordon.look(workerId), typesOf(body)]).then(
        ([may, now]) => (may === 'yes' && now.join() === types.join()) || news.abort(),
        () => undefined,
      )
    }
    const offs = [
      api.notifier.on(`worker:${workerId}`, look),
      api.notifier.on(claimsOf(workerId), look),
      api.handlers.onChange(() => runsCurrent(body) || news.abort()),
    ]
    end.addEventListener('abort', () => {
      for (const off of offs) off()
    })
    return news.signal
  }

  function notificationOrTimeout(
    topic: string,
    ms: number,
    signal: AbortSignal,
  ): { promise: Promise<void>; cancel: () => void } {
    const done = new AbortController()
    const off = api.notifier.on(topic, () => done.abort())
    const promise = delay(ms, undefined, { signal: AbortSignal.any([done.signal, signal]) }).then(
      () => off(),
      () => off(),
    )
    return { promise, cancel: () => done.abort() }
  }
}

function requireOwnWorker<T>(registered: T | undefined): T {
  if (registered === undefined) throw new Problem('forbidden', 'A worker of this id belongs to another instance.')
  return registered
}

/** The part of a request whose numbers are passed on. */
interface ExactCompletions {
  readonly results: readonly { readonly value?: { readonly json?: unknown } }[]
}

function toOutcome(
  { workId, token, durationMs, logs, value, error }: Completion,
  exact: ExactCompletions['results'][number] | undefined,
): Outcome {
  const base = { workId, token, durationMs, ...(logs !== undefined && { logs }) }
  if (error !== undefined) return { ...base, error: error as NonNullable<Outcome['error']> }
  return { ...base, value: toStored(value ?? { json: null }, exact?.value?.json, workId, token) }
}

/** Only the values whose own numbers need it are kept as text. */
function exactContent(json: unknown, exact: unknown): StoredContent {
  const text = printExact(exact)
  return text === JSON.stringify(json) ? { json } : { text }
}

/** A blob's place is never taken from a worker's word: it is where this very attempt may have put it. */
function toStored(
  value: NonNullable<Completion['value']>,
  exact: unknown,
  workId: string,
  token: string,
): StoredContent {
  if ('json' in value && exact !== undefined) return exactContent(value.json, exact)
  if (!('blob' in value)) return value
  const { kind, bytes, sha256 } = value.blob
  return { blob: { key: resultKey(workId, token), kind, bytes, sha256 } }
}
