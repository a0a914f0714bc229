/** What a handler sees of its attempt, inside the slot. */
import type { HandlerContext, JsonValue } from '../handlers/define-handler.ts'
import { maxLogLines, toLogLines } from './log-lines.ts'
import type { SlotOutput } from './slot-output.ts'
import type { SlotJob } from './slot-protocol.ts'

/** Progress is told at most this often. */
const progressEveryMs = 100
const maxNoteLength = 1000

export class JobContext implements HandlerContext {
  readonly job: SlotJob
  readonly #output: SlotOutput
  /** Made when asked for: most short handlers never look. */
  #abort: AbortController | undefined
  #abortReason: string | undefined
  #lineCount = 0
  #droppedCount = 0
  #progressSentMs = Number.NEGATIVE_INFINITY
  #progressTimer: NodeJS.Timeout | undefined
  #progress: { fraction: number; note?: string } | undefined
  #closed = false

  constructor(job: SlotJob, output: SlotOutput) {
    this.job = job
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
      if (this.#abortReason !== undefined) this.#abort.abort(new DOMException(this.#abortReason, 'AbortError'))
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
    const lines = this.#lineCount < maxLogLines ? toLogLines(String(line)) : undefined
    if (lines === undefined) {
      this.#droppedCount += 1
      return
    }
    const kept = lines.slice(0, maxLogLines - this.#lineCount)
    this.#lineCount += kept.length
    this.#droppedCount += lines.length - kept.length
    // At once: the next statement may be the one that crashes.
    this.#output.send({ k: 'log', id: this.job.id, lines: kept })
  }

  abort(reason: string): void {
    this.#abortReason = reason
    this.#abort?.abort(new DOMException(reason, 'AbortError'))
  }

  /** The attempt is over: what its leftovers say from now on goes nowhere. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#progressTimer)
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
