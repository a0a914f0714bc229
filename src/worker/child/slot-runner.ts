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
import type { Blob, BlobPart, FromSlot, SlotJob, ToSlot } from '../protocol/slot-protocol.ts'
import { describeError } from './describe-error.ts'
import { toJson } from './handler-value.ts'
import { JobContext } from './job-context.ts'
import { JobLeftovers } from './job-leftovers.ts'
import type { SlotOutput } from './slot-output.ts'

/** The event loop gets a turn at least this often. */
const turnEveryMs = 10

interface ReceivedBlob {
  readonly kind: Blob['kind']
  readonly bytes: Buffer
}

interface StreamedBlob extends ReceivedBlob {
  /** Of the job that it belongs to: one that was recalled leaves it behind. */
  readonly id: number
  filled: number
}

interface QueuedJob {
  readonly job: SlotJob
  /** What came in the frame of the job. */
  readonly payload: ReceivedBlob | undefined
  readonly checkpoint: ReceivedBlob | undefined
}

export class SlotRunner {
  readonly #handlers: ReadonlyMap<string, Handler>
  readonly #output: SlotOutput
  readonly #leftovers = new JobLeftovers<JobContext>()
  #queue: QueuedJob[] = []
  /** Parts that came ahead of their job; the last one begun is being filled. */
  readonly #streamed = new Map<BlobPart, StreamedBlob>()
  #filling: StreamedBlob | undefined
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
        this.#enqueue(message.jobs, body)
        if (!this.#running) void this.#runAll()
        break
      case 'blob':
        this.#filling = {
          ...{ id: message.id, kind: message.blob.kind, filled: 0 },
          bytes: Buffer.allocUnsafeSlow(message.blob.bytes),
        }
        this.#streamed.set(message.part, this.#filling)
        break
      case 'chunk':
        if (this.#filling !== undefined) this.#filling.filled += body.copy(this.#filling.bytes, this.#filling.filled)
        break
      case 'discard':
        this.#streamed.clear()
        this.#filling = undefined
        break
      case 'recall': {
        const isMeant = ({ job }: QueuedJob): boolean =>
          job.id !== this.#announced && (message.ids === undefined || message.ids.includes(job.id))
        const ids = this.#queue.filter(isMeant).map(({ job }) => job.id)
        this.#queue = this.#queue.filter(queued => !isMeant(queued))
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
      const queued = this.#queue.shift()
      if (queued === undefined) break
      if (this.#announced !== queued.job.id) this.#output.send({ k: 'start', id: queued.job.id })
      const running = this.#runOne(queued)
      if (running !== undefined) await running
    }
    this.#running = false
  }

  /** The bytes of the frame are used again: each job gets its own. */
  #enqueue(jobs: readonly SlotJob[], body: Buffer): void {
    let at = 0
    const cut = ({ kind, bytes }: Blob): ReceivedBlob => {
      at += bytes
      return { kind, bytes: Buffer.from(body.subarray(at - bytes, at)) }
    }
    for (const job of jobs) {
      const { payload, checkpoint } = job
      this.#queue.push({
        job,
        payload: payload !== undefined && 'blob' in payload ? cut(payload.blob) : undefined,
        checkpoint: checkpoint === undefined ? undefined : cut(checkpoint.blob),
      })
    }
  }

  /** @returns a promise only if the handler returned one */
  #runOne(queued: QueuedJob): Promise<void> | undefined {
    const { job } = queued
    const startedMs = performance.now()
    const checkpoint = queued.checkpoint ?? this.#takeStreamed(job, 'checkpoint')
    const context = new JobContext(job, checkpoint?.bytes, this.#output)
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
      const payload = this.#payloadOf(queued)
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

  #payloadOf({ job, payload }: QueuedJob): unknown {
    if (job.payload !== undefined && !('blob' in job.payload)) return job.payload.json ?? null
    const received = payload ?? this.#takeStreamed(job, 'payload')
    if (received === undefined) throw new Error('The payload did not arrive')
    return received.kind === 'bytes' ? received.bytes : JSON.parse(received.bytes.toString())
  }

  #takeStreamed({ id }: SlotJob, part: BlobPart): StreamedBlob | undefined {
    const streamed = this.#streamed.get(part)
    if (streamed?.id !== id) return undefined
    this.#streamed.delete(part)
    return streamed
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
    const next = performance.now() - this.#lastTurnMs > turnEveryMs ? undefined : this.#queue[0]?.job
    this.#announced = next?.id
    this.#output.send(next === undefined ? message : { ...message, next: next.id }, body)
  }
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'

const elapsedMs = (startedMs: number): number => Math.round((performance.now() - startedMs) * 1000) / 1000
