/** The context that a handler gets with its payload. */
import { AttemptAborted, type HandlerContext, type JsonValue } from '../../handlers/define-handler.ts'
import { inMessages, maxLogLines, toLogLines } from '../protocol/log-lines.ts'
import type { SlotJob, ToSlot } from '../protocol/slot-protocol.ts'
import { inspectBriefly } from './describe-error.ts'
import type { SlotOutput } from './slot-output.ts'

/** Progress is told at most this often. */
const progressEveryMs = 100
const maxNoteLength = 1000
const attemptIsOver = 'The attempt is over: its checkpoint is not waited for'

export class JobContext implements HandlerContext {
  readonly job: SlotJob
  readonly lastCheckpoint: Buffer | undefined
  readonly #output: SlotOutput
  /** Made when asked for: most short handlers never look. */
  #abort: AbortController | undefined
  #abortReason: AttemptAborted | undefined
  #lineCount = 0
  #droppedCount = 0
  #progressSentMs = Number.NEGATIVE_INFINITY
  #progressTimer: NodeJS.Timeout | undefined
  #progress: { fraction: number; note?: string } | undefined
  /** Checkpoints that no node has answered yet, by their number. */
  readonly #checkpoints = new Map<number, { resolve: () => void; reject: (error: Error) => void }>()
  #checkpointCount = 0
  #closed = false

  constructor(job: SlotJob, lastCheckpoint: Buffer | undefined, output: SlotOutput) {
    this.job = job
    this.lastCheckpoint = lastCheckpoint
    this.#output = output
  }

  get workId(): string {
    return this.job.workId
  }

  get type(): string {
    return this.job.type
  }

  get attempt(): number {
    return this.job.attempt
  }

  get attempts(): number {
    return this.job.attempts
  }

  get params(): Readonly<Record<string, JsonValue>> {
    return this.job.params as Record<string, JsonValue>
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.#abortReason !== undefined) this.#abort.abort(this.#abortReason)
    }
    return this.#abort.signal
  }

  // Arrow functions: handlers may take them off the context.
  readonly progress = (fraction: number, note?: string): void => {
    if (this.#closed || !Number.isFinite(fraction)) return
    this.#progress = {
      fraction: Math.min(1, Math.max(0, fraction)),
      ...(note === undefined ? {} : { note: String(note).slice(0, maxNoteLength) }),
    }
    const waitMs = this.#progressSentMs + progressEveryMs - performance.now()
    if (waitMs <= 0) this.#sendProgress()
    else this.#progressTimer ??= setTimeout(() => this.#sendProgress(), waitMs)
  }

  readonly log = (line: string): void => {
    if (this.#closed) return
    const lines = this.#lineCount < maxLogLines ? toLogLines(inspectBriefly(line)) : undefined
    if (lines === undefined) {
      this.#droppedCount += 1
      return
    }
    const kept = lines.slice(0, maxLogLines - this.#lineCount)
    this.#lineCount += kept.length
    this.#droppedCount += lines.length - kept.length
    // At once: the next statement may be the one that crashes.
    for (const part of inMessages(kept)) this.#output.send({ k: 'log', id: this.job.id, lines: part })
  }

  readonly checkpoint = (bytes: Uint8Array): Promise<void> => {
    const kept = new Promise<void>((resolve, reject) => {
      if (!(bytes instanceof Uint8Array)) throw new TypeError('A checkpoint is a Uint8Array')
      if (this.#closed) throw new Error(attemptIsOver)
      const seq = ++this.#checkpointCount
      this.#checkpoints.set(seq, { resolve, reject })
      // A copy: it is sent bit by bit, and the handler may go on writing into its buffer.
      this.#output.send({ k: 'checkpoint', id: this.job.id, seq }, Buffer.from(bytes))
    })
    // A handler that does not await it must not get an unhandled rejection, which would end the slot.
    kept.catch(() => undefined)
    return kept
  }

  /** A node has answered, for all checkpoints up to this one. */
  checkpointed({ seq, error }: Extract<ToSlot, { k: 'checkpointed' }>): void {
    for (const [number, { resolve, reject }] of this.#checkpoints) {
      if (number > seq) continue
      this.#checkpoints.delete(number)
      if (error === undefined) resolve()
      else reject(new Error(error))
    }
  }

  abort({ why, message }: Extract<ToSlot, { k: 'abort' }>): void {
    this.#abortReason = new AttemptAborted(why, message)
    this.#abort?.abort(this.#abortReason)
  }

  /** The attempt is over: what its leftovers say from now on goes nowhere. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#progressTimer)
    for (const { reject } of this.#checkpoints.values()) reject(new Error(attemptIsOver))
    this.#checkpoints.clear()
    if (this.#droppedCount > 0) this.#output.send({ k: 'log', id: this.job.id, lines: [], dropped: this.#droppedCount })
  }

  #sendProgress(): void {
    clearTimeout(this.#progressTimer)
    this.#progressTimer = undefined
    if (this.#progress === undefined || this.#closed) return
    this.#progressSentMs = performance.now()
    this.#output.send({ k: 'progress', id: this.job.id, ...this.#progress })
  }
}
