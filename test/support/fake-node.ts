/**
 * A node for tests of workers: speaks the worker protocol out of memory, and keeps everything that workers said.
 * Nothing of the real node is used, so a worker that passes here relies on the protocol exclusive.
 */
import { createHash } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import fastify, { type FastifyInstance } from 'fastify'
import type {
  ClaimRequest,
  CompleteRequest,
  Completion,
  Content,
  HeartbeatReply,
  HeartbeatRequest,
  Lease,
  LeaseRef,
  ReturnRequest,
} from '../../src/contract/worker-protocol.ts'
import { patienceMs } from './until.ts'

export interface FakeJob {
  readonly type: string
  readonly payload?: Content
  readonly params?: Record<string, unknown>
  readonly timeoutMs?: number
  readonly checkpoint?: Content
  readonly exclusive?: boolean
  readonly isolation?: 'process'
}

export class FakeNode {
  readonly completions: Completion[] = []
  readonly stale: Completion[] = []
  readonly returned: string[] = []
  readonly heartbeats: HeartbeatRequest[] = []
  readonly claims: ClaimRequest[] = []
  readonly logs = new Map<string, string[]>()
  readonly progress = new Map<string, { fraction: number; note?: string }[]>()
  readonly uploads = new Map<string, { kind: string; bytes: Buffer }>()
  /** All that were kept, oldest first. */
  readonly checkpoints = new Map<string, Buffer[]>()
  /** Work IDs of everything that came back, in order: completions, returns and checkpoints. */
  readonly events: string[] = []
  /** What is returned waits again, at the head of the line; else it is only noted. */
  requeues = true
  /** Answers 503 to this many checkpoints. */
  refusesCheckpoints = 0
  /** How long its leases hold between two heartbeats. */
  readonly leaseMs = 3000
  /** Sends the second half of a payload when this resolves. */
  sendsRest: (() => Promise<void>) | undefined
  /** Hands no checkpoint out by itself: there is none. */
  losesCheckpoints = false
  /** Answers 503 to everything. */
  isAway = false
  /** How often each path was answered so. */
  readonly refused = new Map<string, number>()
  /** Every request must carry this bearer token, unless empty. */
  token = ''
  /** Makes the next reply to a completion get lost after it was recorded. */
  loseNextReply = false
  completeCalls = 0
  port = 0
  readonly #waiting: Lease[] = []
  readonly #leased = new Map<string, Lease>()
  readonly #stops: HeartbeatReply['stop'] = []
  readonly #blobs = new Map<string, Buffer>()
  readonly #known = new Set<string>()
  readonly #notifiers = new Set<() => void>()
  #draining = false
  #count = 0
  #app: FastifyInstance | undefined

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Listens, on the port it had before if there was one. */
  async open(): Promise<void> {
    const app = fastify({ forceCloseConnections: true, bodyLimit: 4 * 1024 * 1024 })
    const raw = { parseAs: 'buffer', bodyLimit: 64 * 1024 * 1024 } as const
    app.addContentTypeParser('application/octet-stream', raw, (_request, body, done) => done(null, body))
    app.addHook('onRequest', async (request, reply) => {
      if (this.token !== '' && request.headers.authorization !== `Bearer ${this.token}`) {
        await reply.code(401).send({ code: 'not_allowed', detail: 'who are you?' })
      } else if (this.isAway) {
        this.refused.set(request.url, (this.refused.get(request.url) ?? 0) + 1)
        await reply.code(503).header('retry-after', '1').send({ code: 'redis_unavailable', detail: 'away' })
      }
    })
    app.post('/workers/heartbeat', async request => await this.#heartbeat(request.body as HeartbeatRequest))
    app.post('/workers/claim', async (request, reply) => {
      const claim = request.body as ClaimRequest
      this.claims.push(claim)
      if (!this.#known.has(claim.workerId))
        return await reply.code(409).send({ code: 'worker_unknown', detail: 'say who you are' })
      if (this.#draining) return await reply.code(409).send({ code: 'drained_worker', detail: 'go' })
      await this.#until(
        () => this.#waiting.length > 0 || this.#draining || request.raw.socket.destroyed,
        claim.waitMs ?? 0,
      )
      if (request.raw.socket.destroyed) return { leaseMs: this.leaseMs, jobs: [], drain: false }
      return { leaseMs: this.leaseMs, jobs: this.#lease(claim.max), drain: this.#draining }
    })
    app.post('/workers/complete', async (request, reply) => {
      const { results, claim } = request.body as CompleteRequest
      this.completeCalls += 1
      const outcomes = results.map(result => ({ workId: result.workId, outcome: this.#complete(result) }))
      if (this.loseNextReply) {
        this.loseNextReply = false
        request.raw.socket.destroy()
        return reply
      }
      return {
        leaseMs: this.leaseMs,
        results: outcomes,
        jobs: this.#draining ? [] : this.#lease(claim ?? 0),
        drain: this.#draining,
      }
    })
    app.post('/workers/return', async request => {
      const { jobs } = request.body as ReturnRequest
      const again: Lease[] = []
      for (const { workId } of jobs) {
        this.returned.push(workId)
        this.events.push(`return ${workId}`)
        const lease = this.#leased.get(workId)
        this.#leased.delete(workId)
        const kept = this.losesCheckpoints ? undefined : this.checkpoints.get(workId)?.at(-1)
        const checkpoint = kept !== undefined && { checkpoint: blobAt(`/workers/checkpoints/${workId}?token=t`, kept) }
        if (lease !== undefined) again.push({ ...lease, ...checkpoint, token: `t${++this.#count}` })
      }
      if (this.requeues) this.#waiting.unshift(...again)
      this.notify()
      return { returned: jobs.length }
    })
    app.get('/workers/payloads/:workId', async (request, reply) => {
      const { workId } = request.params as { workId: string }
      const bytes = this.#blobs.get(workId)
      if (this.sendsRest === undefined || bytes === undefined)
        return await reply.type('application/octet-stream').send(bytes)
      const { sendsRest } = this
      const half = bytes.length / 2
      const halves = async function* () {
        yield bytes.subarray(0, half)
        await sendsRest()
        yield bytes.subarray(half)
      }
      return await reply.type('application/octet-stream').send(Readable.from(halves()))
    })
    app.get('/workers/checkpoints/:workId', async (request, reply) => {
      const { workId } = request.params as { workId: string }
      const bytes = this.#blobs.get(`checkpoint of ${workId}`)
      if (bytes === undefined || this.losesCheckpoints)
        return await reply.code(404).send({ code: 'job_not_found', detail: 'no such thing' })
      const digest = `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`
      return await reply.type('application/octet-stream').header('repr-digest', digest).send(bytes)
    })
    app.put('/workers/checkpoints/:workId', async (request, reply) => {
      const { workId } = request.params as { workId: string }
      if (this.refusesCheckpoints > 0) {
        this.refusesCheckpoints -= 1
        return await reply.code(503).send({ code: 'redis_unavailable', detail: 'away' })
      }
      if (!this.#leased.has(workId)) return await reply.code(409).send({ code: 'lease_lost', detail: 'not yours' })
      const bytes = request.body as Buffer
      this.checkpoints.set(workId, [...(this.checkpoints.get(workId) ?? []), bytes])
      this.#blobs.set(`checkpoint of ${workId}`, bytes)
      this.events.push(`checkpoint ${workId}`)
      this.notify()
      return { bytes: bytes.length }
    })
    app.put('/workers/results/:workId', async request => {
      const { workId } = request.params as { workId: string }
      const { kind } = request.query as { kind: string }
      const bytes = request.body as Buffer
      this.uploads.set(workId, { kind, bytes })
      return { value: { blob: { url: `/${workId}`, kind, bytes: bytes.length, sha256: sha256(bytes) } } }
    })
    await app.listen({ port: this.port, host: '127.0.0.1' })
    this.port = (app.server.address() as AddressInfo).port
    this.#app = app
  }

  async close(): Promise<void> {
    const app = this.#app
    this.#app = undefined
    this.notify()
    await app?.close()
  }

  /** Puts jobs in; returns their Work IDs. */
  add(...jobs: FakeJob[]): string[] {
    const ids = jobs.map(({ type, payload, params, timeoutMs, checkpoint, exclusive, isolation }) => {
      const workId = `w${++this.#count}`
      const token = `t${this.#count}`
      this.#waiting.push({
        workId,
        token,
        type,
        attempt: 1,
        attempts: 3,
        payload: payload ?? { json: null },
        params: params ?? {},
        timeoutMs: timeoutMs ?? 60_000,
        ...(checkpoint === undefined ? {} : { checkpoint }),
        ...(exclusive === undefined ? {} : { exclusive }),
        ...(isolation === undefined ? {} : { isolation }),
      })
      return workId
    })
    this.notify()
    return ids
  }

  /** A payload that has to be fetched; `broken`: it is not what its checksum says. */
  addWithBlob(type: string, bytes: Buffer, kind: 'bytes' | 'json', broken = false): string {
    const workId = `w${this.#count + 1}`
    this.#blobs.set(workId, broken ? Buffer.alloc(bytes.length) : bytes)
    const blob = { url: `/workers/payloads/${workId}?token=t`, kind, bytes: bytes.length, sha256: sha256(bytes) }
    return this.add({ type, payload: { blob } })[0] as string
  }

  /** A job with a checkpoint that has to be fetched (`isThere` false: it cannot be), and a payload likewise if in bytes. */
  addWithCheckpointBlob(type: string, bytes: Buffer, payload: Content | Buffer, isThere = true): string {
    const workId = `w${this.#count + 1}`
    const blobOf = (place: string, bytes: Buffer, kind: 'bytes' | 'json') =>
      blobAt(`/workers/${place}/${workId}?token=t`, bytes, kind)
    if (isThere) this.#blobs.set(`checkpoint of ${workId}`, bytes)
    if (Buffer.isBuffer(payload)) this.#blobs.set(workId, payload)
    const checkpoint = blobOf('checkpoints', bytes, 'bytes')
    const content = Buffer.isBuffer(payload) ? blobOf('payloads', payload, 'json') : payload
    return this.add({ type, payload: content, checkpoint })[0] as string
  }

  cancel(workId: string): void {
    const lease = this.#leased.get(workId)
    if (lease === undefined) throw new Error(`${workId} is not leased`)
    this.#leased.delete(workId)
    this.#stops.push({ workId, token: lease.token, reason: 'cancelled' })
    this.notify()
  }

  drain(): void {
    this.#draining = true
    this.notify()
  }

  /** Forgets its workers, as a restarted node would. */
  forgetWorkers(): void {
    this.#known.clear()
  }

  get waitingCount(): number {
    return this.#waiting.length
  }

  get leasedIds(): string[] {
    return [...this.#leased.keys()]
  }

  completionOf(workId: string): Completion | undefined {
    return this.completions.find(completion => completion.workId === workId)
  }

  /** The completion of a job, as soon as it is there. */
  async result(workId: string, withinMs = patienceMs): Promise<Completion> {
    await this.when(() => this.completionOf(workId) !== undefined, `result of ${workId}`, withinMs)
    return this.completionOf(workId) as Completion
  }

  /** Resolves when the condition holds; it is looked at after everything that happens here, and now and then. */
  async when(condition: () => boolean, what: string, withinMs = patienceMs): Promise<void> {
    await this.#until(condition, withinMs)
    if (!condition()) throw new Error(`Not within ${withinMs} ms: ${what}`)
  }

  notify(): void {
    for (const notifier of [...this.#notifiers]) notifier()
  }

  async #until(condition: () => boolean, withinMs: number): Promise<void> {
    const deadlineMs = performance.now() + withinMs
    while (!condition() && performance.now() < deadlineMs) {
      await new Promise<void>(resolve => {
        const wake = (): void => {
          this.#notifiers.delete(wake)
          clearTimeout(timer)
          resolve()
        }
        const timer = setTimeout(wake, 50)
        this.#notifiers.add(wake)
      })
    }
  }

  #lease(max: number): Lease[] {
    const jobs = this.#waiting.splice(0, max)
    for (const job of jobs) this.#leased.set(job.workId, job)
    return jobs
  }

  #complete(completion: Completion): 'succeeded' | 'dead' | 'stale' {
    const isHeld = this.#leased.get(completion.workId)?.token === completion.token
    this.#leased.delete(completion.workId)
    this.events.push(`complete ${completion.workId}`)
    if (isHeld) this.completions.push(completion)
    else this.stale.push(completion)
    this.#addLogs(completion.workId, completion.logs ?? [])
    this.notify()
    if (!isHeld) return 'stale'
    return completion.error === undefined ? 'succeeded' : 'dead'
  }

  async #heartbeat(request: HeartbeatRequest): Promise<HeartbeatReply> {
    this.#known.add(request.worker.workerId)
    this.heartbeats.push(request)
    for (const { workId, lines } of request.logs ?? []) this.#addLogs(workId, lines)
    for (const { workId, fraction, note } of request.progress ?? []) {
      this.progress.set(workId, [
        ...(this.progress.get(workId) ?? []),
        note === undefined ? { fraction } : { fraction, note },
      ])
    }
    this.notify()
    const named = (ref: LeaseRef): boolean => request.leases.some(lease => lease.workId === ref.workId)
    await this.#until(() => this.#app === undefined || this.#draining || this.#stops.some(named), request.waitMs ?? 0)
    const stop = this.#stops.filter(named)
    for (const order of stop) this.#stops.splice(this.#stops.indexOf(order), 1)
    return { leaseMs: this.leaseMs, stop, drain: this.#draining }
  }

  #addLogs(workId: string, lines: readonly string[]): void {
    if (lines.length > 0) this.logs.set(workId, [...(this.logs.get(workId) ?? []), ...lines])
  }
}

const blobAt = (url: string, bytes: Buffer, kind: 'bytes' | 'json' = 'bytes') => ({
  blob: { url, kind, bytes: bytes.length, sha256: sha256(bytes) },
})

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
