/**
 * A slot as the agent sees it: a child process that runs one job at a time, and what waits in it.
 *
 *   starting ──ready──▶ ready ──exit, crash, kill──▶ dead
 *       └──unready, too slow, exit──▶ dead
 *
 * It enforces the run-time limit of the job that runs. A slot is never repaired: whoever owns it starts another one.
 */
import { StartupError } from '../errors.ts'
import type { Attempt, Outcome, Verdict } from './attempt.ts'
import { Deadline } from './deadline.ts'
import { SlotProcess } from './slot-process.ts'
import type { BlobPart, FromSlot, HandlerDescription } from './slot-protocol.ts'
import { aborts, timedOut, toAttemptError, toSlotJob } from './slot-words.ts'

/** Between the abort of a job and the kill of its slot: time for a last checkpoint. */
const killGraceMs = 3000
/** A little more than handlers may take to load, so that what they say about it is heard. */
const readyWithinMs = 40_000
/** A slot that does not answer a recall is in a tight loop; it obeys before it starts another job. */
const recallWithinMs = 1000

export interface SlotEvents {
  /** The attempt has left the slot. The bytes of its value are only good until this returns: keep a copy. */
  readonly onOutcome: (attempt: Attempt, outcome: Outcome) => void
  /** Room in the slot: a job has ended, or all were given back. */
  readonly onChange: (slot: Slot) => void
  /** These were in the slot but have not started; they may run elsewhere. */
  readonly onUnstarted: (attempts: Attempt[]) => void
  /** After it no other event comes. `hadJob`: a job was running. */
  readonly onDeath: (slot: Slot, reason: string, hadJob: boolean) => void
  /** The attempt has new log lines or progress. */
  readonly onUpdate: (attempt: Attempt) => void
  /** The attempt leaves these bytes for the next one; they are the receiver's. `answer` is to be called once it is known. */
  readonly onCheckpoint: (attempt: Attempt, bytes: Buffer, answer: (error?: string) => void) => void
}

export interface SlotOptions {
  readonly handlersFile: string | undefined
  readonly heapMb: number
  readonly events: SlotEvents
}

interface ReadySettlers {
  readonly resolve: (types: HandlerDescription[]) => void
  readonly reject: (error: Error) => void
}

export class Slot {
  /** Settles once: the types it can run, or a StartupError. */
  readonly ready: Promise<HandlerDescription[]>
  readonly #process: SlotProcess
  readonly #events: SlotEvents
  readonly #settlers: ReadySettlers
  #state: 'starting' | 'ready' | 'dead' = 'starting'
  /** Everything in the slot, in the order in which it runs. */
  readonly #held = new Map<number, Attempt>()
  #current: Attempt | undefined
  readonly #deadline = new Deadline(() => this.#current !== undefined && this.end(this.#current, 'timeout'))
  #killTimer: NodeJS.Timeout | undefined
  #recallTimer: NodeJS.Timeout | undefined
  #recallCount = 0
  /** Answers to recalls up to this one come too late: their jobs were taken back already. */
  #recallsOverdue = 0
  readonly #readyTimer: NodeJS.Timeout
  #fault: Extract<FromSlot, { k: 'fault' }> | undefined
  /** A payload or a checkpoint is being streamed into it. */
  isReserved = false
  /** What is in it is short: it may get more before it is empty. */
  takesMore = false

  /** @throws Error when the system has no room for another process */
  constructor({ handlersFile, heapMb, events }: SlotOptions) {
    this.#events = events
    this.#process = new SlotProcess({
      handlersFile,
      heapMb,
      onMessage: (message, body) => this.#receive(message, body),
      onOutput: lines => this.#update(this.#current, attempt => attempt.addLog(lines)),
      onEnd: death => this.#die(death),
    })
    let settlers: ReadySettlers | undefined
    this.ready = new Promise((resolve, reject) => {
      settlers = { resolve, reject }
    })
    this.#settlers = settlers as unknown as ReadySettlers
    // Whoever starts a slot listens; one that was given up is nobody's unhandled rejection.
    this.ready.catch(() => undefined)
    this.#readyTimer = setTimeout(() => {
      this.#settlers.reject(new StartupError(`The handlers did not load within ${readyWithinMs / 1000} s`))
      this.kill()
    }, readyWithinMs)
  }

  get isReady(): boolean {
    return this.#state === 'ready'
  }

  get isDead(): boolean {
    return this.#state === 'dead'
  }

  get pid(): number | undefined {
    return this.#process.pid
  }

  /** Jobs in it, the running one included. */
  get size(): number {
    return this.#held.size
  }

  get current(): Attempt | undefined {
    return this.#current
  }

  /** How long the running job runs; 0 when none does. */
  get runningForMs(): number {
    return this.#current?.startedAtMs === undefined ? 0 : performance.now() - this.#current.startedAtMs
  }

  get isRecalling(): boolean {
    return this.#recallTimer !== undefined
  }

  /** Gives it jobs; blobs that were streamed in before belong to the first one. */
  run(attempts: readonly Attempt[]): void {
    for (const attempt of attempts) this.#held.set(attempt.id, attempt)
    this.#process.send({ k: 'run', jobs: attempts.map(toSlotJob) })
  }

  openBlob(part: BlobPart, bytes: number, kind: 'bytes' | 'json'): void {
    this.#process.send({ k: 'blob', part, bytes, kind })
  }

  /** Resolves when there is room for more; also when the slot died. */
  async writeBlob(chunk: Uint8Array): Promise<void> {
    await this.#process.sendChunk(chunk)
  }

  discardBlobs(): void {
    this.#process.send({ k: 'discard' })
  }

  /** Asks for everything back that has not started; it comes by onUnstarted. */
  recall(): void {
    if (this.isRecalling || this.#state !== 'ready') return
    this.#process.send({ k: 'recall', seq: ++this.#recallCount })
    this.#recallTimer = setTimeout(() => {
      this.#recallsOverdue = this.#recallCount
      this.#giveBack([...this.#held.values()].filter(attempt => attempt !== this.#current))
    }, recallWithinMs)
  }

  /**
   * Ends one attempt: its signal aborts, and the slot is killed soon after if that does not help. What it says from
   * now on counts for nothing; onOutcome or onUnstarted comes all the same, with the verdict on the attempt.
   */
  end(attempt: Attempt, verdict: Verdict): void {
    if (!this.#held.has(attempt.id) || attempt.verdict !== undefined) return
    attempt.verdict = verdict
    if (attempt === this.#current) this.#abortCurrent(attempt)
    else this.#process.send({ k: 'recall', seq: ++this.#recallCount, ids: [attempt.id] })
  }

  /** Kills the process and all that it started. */
  kill(): void {
    this.#process.kill()
  }

  #receive(message: FromSlot, body: Buffer): void {
    switch (message.k) {
      case 'ready':
        clearTimeout(this.#readyTimer)
        this.#state = 'ready'
        this.#settlers.resolve([...message.types])
        this.#events.onChange(this)
        break
      case 'unready':
        this.#settlers.reject(new StartupError(message.message))
        break
      case 'start':
        this.#setCurrent(message.id)
        break
      case 'done':
        this.#settle(message, { durationMs: message.ms, value: { kind: message.kind, bytes: body } })
        break
      case 'failed':
        this.#settle(message, { durationMs: message.ms, error: toAttemptError(message.error) })
        break
      case 'progress': {
        const { fraction, note } = message
        this.#update(this.#held.get(message.id), attempt => {
          attempt.progress = note === undefined ? { fraction } : { fraction, note }
        })
        break
      }
      case 'log':
        this.#update(this.#held.get(message.id), attempt => attempt.addLog(message.lines, message.dropped))
        break
      case 'checkpoint':
        this.#keepCheckpoint(message, body)
        break
      case 'recalled':
        if (message.seq > this.#recallsOverdue) this.#giveBack(message.ids.flatMap(id => this.#held.get(id) ?? []))
        break
      case 'fault':
        this.#fault = message
        break
    }
  }

  #update(attempt: Attempt | undefined, change: (attempt: Attempt) => void): void {
    if (attempt === undefined || attempt.verdict !== undefined) return
    change(attempt)
    this.#events.onUpdate(attempt)
  }

  /** Also of an attempt that is being ended: this is what the time until its kill is for. */
  #keepCheckpoint({ id, seq }: { id: number; seq: number }, body: Buffer): void {
    const attempt = this.#held.get(id)
    if (attempt === undefined || attempt.verdict === 'stopped') return
    // The frame's bytes are used again.
    this.#events.onCheckpoint(attempt, Buffer.from(body), error =>
      this.#process.send({ k: 'checkpointed', id, seq, ...(error === undefined ? {} : { error }) }),
    )
  }

  #settle({ id, next }: { id: number; next?: number }, outcome: Outcome): void {
    const attempt = this.#held.get(id)
    this.#held.delete(id)
    this.#setCurrent(next)
    if (attempt !== undefined)
      this.#events.onOutcome(attempt, attempt.verdict === 'timeout' ? timedOut(attempt, outcome.durationMs) : outcome)
    this.#events.onChange(this)
  }

  #setCurrent(id: number | undefined): void {
    clearTimeout(this.#killTimer)
    const attempt = id === undefined ? undefined : this.#held.get(id)
    this.#current = attempt
    if (attempt === undefined) {
      this.#deadline.clear()
      return
    }
    attempt.startedAtMs = performance.now()
    this.#deadline.set(attempt.startedAtMs + attempt.lease.timeoutMs)
    if (attempt.verdict !== undefined) this.#abortCurrent(attempt)
  }

  #abortCurrent(attempt: Attempt): void {
    this.#process.send({ k: 'abort', id: attempt.id, ...aborts[attempt.verdict ?? 'stopped'](attempt) })
    clearTimeout(this.#killTimer)
    this.#killTimer = setTimeout(() => this.kill(), killGraceMs)
  }

  #giveBack(attempts: Attempt[]): void {
    clearTimeout(this.#recallTimer)
    this.#recallTimer = undefined
    for (const attempt of attempts) this.#held.delete(attempt.id)
    if (attempts.length > 0) this.#events.onUnstarted(attempts)
    this.#events.onChange(this)
  }

  #die(death: { code: string; message: string }): void {
    this.#state = 'dead'
    this.#deadline.clear()
    for (const timer of [this.#readyTimer, this.#killTimer, this.#recallTimer]) clearTimeout(timer)
    this.#settlers.reject(new StartupError(`A slot ended while it was starting: ${death.message}`))
    const culprit = this.#current
    const unstarted = [...this.#held.values()].filter(attempt => attempt !== culprit)
    this.#held.clear()
    this.#current = undefined
    if (culprit !== undefined) this.#events.onOutcome(culprit, this.#outcomeOfDeath(culprit, death))
    if (unstarted.length > 0) this.#events.onUnstarted(unstarted)
    this.#events.onDeath(this, this.#fault?.error.message ?? death.message, culprit !== undefined)
  }

  #outcomeOfDeath(attempt: Attempt, death: { code: string; message: string }): Outcome {
    const durationMs = Math.max(0, performance.now() - (attempt.startedAtMs ?? performance.now()))
    if (attempt.verdict === 'timeout') return timedOut(attempt, durationMs)
    if (this.#fault?.id === attempt.id) return { durationMs, error: toAttemptError(this.#fault.error) }
    return { durationMs, error: death }
  }
}
