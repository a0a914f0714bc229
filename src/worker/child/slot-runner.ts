/**
 * Runs the jobs of one slot strictly one after another, inside the slot's process.
 *
 *   run ──▶ queued ──▶ running ──▶ done or failed is sent at once ──▶ the next one
 *              └─ recall ──▶ recalled
 *
 * After a job that took a while the mailbox is read before the next one starts, so that the agent can recall the jobs
 * that wait behind a long one.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { isUint8Array } from 'node:util/types'
import type { Handler } from '../../handlers/define-handler.ts'
import { enterAttemptFolder } from '../protocol/attempt-folder.ts'
import type { BlobPart, FromSlot, SlotJob, ToSlot } from '../protocol/slot-protocol.ts'
import { describeError } from './describe-error.ts'
import { toJson } from './handler-value.ts'
import { JobContext } from './job-context.ts'
import { JobLeftovers } from './job-leftovers.ts'
import type { SlotOutput } from './slot-output.ts'

/** The event loop gets a turn at least this often. */
const turnEveryMs = 10

interface IncomingBlob {
  /** Of the job that it belongs to: one that was recalled leaves it behind. */
  readonly id: number
  readonly kind: 'bytes' | 'json'
  readonly bytes: Buffer
  filled: number
}

export class SlotRunner {
  readonly #handlers: ReadonlyMap<string, Handler>
  readonly #output: SlotOutput
  readonly #leftovers = new JobLeftovers<JobContext>()
  #queue: SlotJob[] = []
  /** Parts that came ahead of their job; the last one begun is being filled. */
  readonly #incoming = new Map<BlobPart, IncomingBlob>()
  #filling: IncomingBlob | undefined
  #current: { readonly context: JobContext; readonly startedMs: number } | undefined
  #running = false
  #lastTurnMs = 0
  /** The agent was told that this one starts: it cannot be recalled any more. */
  #announced: number | undefined
  /** An abort that came for a job just before it started. */
  #earlyAbort: Extract<ToSlot, { k: 'abort' }> | undefined

  constructor(handlers: ReadonlyMap<string, Handler>, output: SlotOutput) {
    this.#handlers = handlers
    this.#output = output
  }

  receive(message: ToSlot, body: Buffer): void {
    switch (message.k) {
      case 'run':
        this.#queue.push(...message.jobs)
        if (!this.#running) void this.#runAll()
        break
      case 'blob':
        this.#filling = { id: message.id, kind: message.kind, bytes: Buffer.allocUnsafeSlow(message.bytes), filled: 0 }
        this.#incoming.set(message.part, this.#filling)
        break
      case 'chunk':
        if (this.#filling !== undefined) this.#filling.filled += body.copy(this.#filling.bytes, this.#filling.filled)
        break
      case 'discard':
        this.#incoming.clear()
        this.#filling = undefined
        break
      case 'recall': {
        const isMeant = (job: SlotJob): boolean =>
          job.id !== this.#announced && (message.ids === undefined || message.ids.includes(job.id))
        const ids = this.#queue.filter(isMeant).map(job => job.id)
        this.#queue = this.#queue.filter(job => !isMeant(job))
        this.#output.send({ k: 'recalled', seq: message.seq, ids })
        break
      }
      case 'abort':
        if (this.#current?.context.job.id === message.id) this.#current.context.abort(message)
        else this.#earlyAbort = message
        break
      case 'checkpointed':
        if (this.#current?.context.job.id === message.id) this.#current.context.checkpointed(message)
        break
    }
  }

  /** Printed text, for the log of the job that printed it, if that is not over. @returns false when no job owns it */
  print(text: string): boolean {
    const owner = this.#leftovers.owner ?? this.#current?.context
    owner?.log(text)
    return owner !== undefined
  }

  /** What to tell the agent about an error that no handler caught. */
  fault(error: unknown, origin: string): FromSlot {
    const described = describeError(error)
    const fault = { k: 'fault', ms: 0, error: { ...described, message: `${origin}: ${described.message}` } } as const
    // What another or an unknown job left behind is not the fault of the running one.
    if (this.#current === undefined || this.#leftovers.owner !== this.#current.context) return fault
    return { ...fault, id: this.#current.context.job.id, ms: elapsedMs(this.#current.startedMs) }
  }

  async #runAll(): Promise<void> {
    this.#running = true
    this.#lastTurnMs = performance.now()
    for (;;) {
      if (performance.now() - this.#lastTurnMs > turnEveryMs || !this.#output.isFlushed) {
        await this.#output.flushed()
        // Two turns: the first may begin after the poll for messages of this one.
        await nextTurn()
        await nextTurn()
        this.#lastTurnMs = performance.now()
      }
      const job = this.#queue.shift()
      if (job === undefined) break
      if (this.#announced !== job.id) this.#output.send({ k: 'start', id: job.id })
      const running = this.#runOne(job)
      if (running !== undefined) await running
    }
    this.#running = false
  }

  /** @returns a promise only if the handler gave one */
  #runOne(job: SlotJob): Promise<void> | undefined {
    const startedMs = performance.now()
    const context = new JobContext(job, this.#checkpointOf(job), this.#output)
    this.#current = { context, startedMs }
    if (this.#earlyAbort?.id === job.id) context.abort(this.#earlyAbort)
    try {
      const handler = this.#handlers.get(job.type)
      if (handler === undefined) {
        const message = `This worker has no handler for the type "${job.type}"`
        this.#finish({ k: 'failed', id: job.id, ms: 0, error: { message, code: 'type_unsupported' } })
        return undefined
      }
      if (job.isolated === true) enterAttemptFolder()
      const payload = this.#payloadOf(job)
      const value = this.#leftovers.run(context, () => handler.handle(payload, context))
      if (isThenable(value)) return this.#settle(job, startedMs, value)
      this.#succeed(job, startedMs, value)
    } catch (error) {
      this.#fail(job, startedMs, error)
    }
    return undefined
  }

  async #settle(job: SlotJob, startedMs: number, value: PromiseLike<unknown>): Promise<void> {
    try {
      this.#succeed(job, startedMs, await value)
    } catch (error) {
      this.#fail(job, startedMs, error)
    }
  }

  #payloadOf(job: SlotJob): unknown {
    if (job.payload === undefined) {
      const incoming = this.#takeIncoming(job, 'payload')
      if (incoming === undefined) throw new Error('The payload did not arrive')
      return incoming.kind === 'bytes' ? incoming.bytes : JSON.parse(incoming.bytes.toString())
    }
    if ('base64' in job.payload) return Buffer.from(job.payload.base64, 'base64')
    return 'json' in job.payload ? job.payload.json : null
  }

  #checkpointOf(job: SlotJob): Buffer | undefined {
    const { checkpoint } = job
    if (checkpoint === undefined) return this.#takeIncoming(job, 'checkpoint')?.bytes
    return 'base64' in checkpoint ? Buffer.from(checkpoint.base64, 'base64') : undefined
  }

  #takeIncoming({ id }: SlotJob, part: BlobPart): IncomingBlob | undefined {
    const incoming = this.#incoming.get(part)
    if (incoming?.id !== id) return undefined
    this.#incoming.delete(part)
    return incoming
  }

  #succeed(job: SlotJob, startedMs: number, value: unknown): void {
    if (isUint8Array(value)) this.#finish({ k: 'done', id: job.id, ms: elapsedMs(startedMs), kind: 'bytes' }, value)
    else this.#finish({ k: 'done', id: job.id, ms: elapsedMs(startedMs), kind: 'json' }, toJson(value))
  }

  #fail(job: SlotJob, startedMs: number, error: unknown): void {
    this.#finish({ k: 'failed', id: job.id, ms: elapsedMs(startedMs), error: describeError(error) })
  }

  #finish(message: Extract<FromSlot, { k: 'done' | 'failed' }>, body?: string | Uint8Array): void {
    if (this.#current !== undefined) {
      this.#current.context.close()
      this.#leftovers.undo(this.#current.context)
    }
    this.#current = undefined
    // Announced with the result, so that the agent knows at any time which job a crash would hit.
    const next = performance.now() - this.#lastTurnMs > turnEveryMs ? undefined : this.#queue[0]
    this.#announced = next?.id
    this.#output.send(next === undefined ? message : { ...message, next: next.id }, body)
  }
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'

const elapsedMs = (startedMs: number): number => Math.round((performance.now() - startedMs) * 1000) / 1000
