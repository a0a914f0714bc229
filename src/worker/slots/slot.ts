/**
 * A slot as the agent sees it: a child process that runs one job at a time, and what waits in it.
 *
 *   starting ──ready──▶ ready ──exit, crash, kill──▶ dead
 *       └──unready, too slow, exit──▶ dead
 *
 * It enforces the run-time limit, counted from when the job was sent, so that a slot that never says "start" does not
 * keep a job. What a slot sends is untrusted input: only messages about the running job count, and an invalid message
 * ends the slot. A slot is never repaired: its owner starts another one.
 */
import type { AttemptError } from '../../contract/worker-protocol.ts'
import { StartupError } from '../../errors.ts'
import type { Attempt, EndReason, Outcome } from '../attempts/attempt.ts'
import type { AttemptEvents } from '../attempts/attempt-table.ts'
import {
  type Blob,
  type BlobPart,
  checkedMessage,
  type FromSlot,
  type HandlerDescription,
} from '../protocol/slot-protocol.ts'
import { Deadline } from './deadline.ts'
import { aborts, checkedJson, timedOut, toAttemptError, toSlotJob, unreadable } from './slot-messages.ts'
import { SlotProcess } from './slot-process.ts'

/** Between the abort of a job and the kill of its slot: time for a last checkpoint. */
const killGraceMs = 3000
/** A little more than handlers may take to load, so that what they say about it is heard. */
const readyWithinMs = 40_000
/** A slot that does not answer a recall is in a tight loop; it obeys before it starts another job. */
const recallWithinMs = 1000
/** A slot that has jobs but starts none of them for this long is blocked, by what an earlier job left in it. */
const startWithinMs = 10_000
/** Of a note, as nodes take it. */
const maxNoteChars = 1000

/** What a slot needs to start, and what it tells its owner. */
export interface SlotEvents {
  /** The attempt has left the slot. The bytes of its value are only good until this returns: keep a copy. */
  readonly onOutcome: (attempt: Attempt, outcome: Outcome) => void
  /** Room in the slot: a job has ended, or all were recalled. */
  readonly onChange: (slot: Slot) => void
  /** These were in the slot but have not started; they may run elsewhere. */
  readonly onUnstarted: (attempts: Attempt[]) => void
  /** After it no other event comes. `hadJob`: a job was running. */
  readonly onDeath: (slot: Slot, reason: string, hadJob: boolean) => void
}

export interface SlotOptions {
  readonly handlersFile: string | undefined
  readonly heapMb: number
  /** Largest value or checkpoint. */
  readonly maxBodyBytes: number
  readonly passEnv: readonly string[]
  readonly attemptEvents: Pick<AttemptEvents, 'onUpdate' | 'onCheckpoint'>
  readonly events: SlotEvents
}

export class Slot {
  /** Settles once: the types it can run, or a StartupError. */
  readonly ready: Promise<HandlerDescription[]>
  readonly #process: SlotProcess
  readonly #events: SlotEvents
  readonly #attemptEvents: SlotOptions['attemptEvents']
  #resolveReady: (types: HandlerDescription[]) => void = () => undefined
  #rejectReady: (error: Error) => void = () => undefined
  readonly #handlersFile: string | undefined
  #state: 'starting' | 'ready' | 'dead' = 'starting'
  /** Everything in the slot, in the order in which it runs. */
  readonly #held = new Map<number, Attempt>()
  #current: Attempt | undefined
  /** Since when the first job in it could run: when it was sent, or the end of the one before. */
  #turnSinceMs = 0
  readonly #deadline = new Deadline(() => this.#onDeadline())
  #killTimer: NodeJS.Timeout | undefined
  #recallTimer: NodeJS.Timeout | undefined
  #recallCount = 0
  /** Answers to recalls up to this one come too late: their jobs were released already. */
  #recallsOverdue = 0
  /** Jobs that were released although the slot may still start them: its messages about them are ignored. */
  readonly #released = new Set<number>()
  readonly #readyTimer: NodeJS.Timeout
  #fault: Extract<FromSlot, { k: 'fault' }> | undefined
  /** It ends for something that the job which runs now has not done. */
  #sparesCurrent = false
  /** Why it ended. */
  death: AttemptError | undefined
  /** A payload or a checkpoint is being streamed into it. */
  isReserved = false
  /** What is in it is short: it may get more before it is empty. */
  takesMore = false
  /** Its handlers were replaced: it finishes what it runs, gets nothing more, and ends. */
  isRetired = false
  /** Retired, and the slot that takes its place has been started. */
  isReplaced = false
  /** Nothing of any job has ever been in it. */
  isFresh = true

  /** @throws Error when the system has no room for another process */
  constructor({ events, attemptEvents, ...options }: SlotOptions) {
    this.#events = events
    this.#attemptEvents = attemptEvents
    this.#handlersFile = options.handlersFile
    this.#process = new SlotProcess({
      ...options,
      onMessage: (header, body) => this.#receive(checkedMessage(header), body),
      onOutput: lines => this.#update(this.#current, attempt => attempt.addLog(lines)),
      onEnd: death => this.#die(death),
    })
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve
      this.#rejectReady = reject
    })
    // The starter of a slot awaits it; without this a slot that ends early would be an unhandled rejection.
    this.ready.catch(() => undefined)
    this.#readyTimer = setTimeout(() => {
      const what = this.#handlersFile ?? 'The built-in handlers'
      const hint = 'Nothing at the top level of the file may run for ever.'
      this.#rejectReady(new StartupError(`${what}: not loaded within ${readyWithinMs / 1000} s. ${hint}`))
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

  has(attempt: Attempt): boolean {
    return this.#held.has(attempt.id)
  }

  /** How long the running job runs; 0 when none does. */
  get runningForMs(): number {
    return this.#current?.startedAtMs === undefined ? 0 : performance.now() - this.#current.startedAtMs
  }

  get isRecalling(): boolean {
    return this.#recallTimer !== undefined
  }

  /**
   * Gives it jobs; each comes out again by an event. Blobs that were streamed in before are named by their attempt.
   * @param isIsolated it is the only one that this slot ever runs
   */
  run(attempts: readonly Attempt[], isIsolated = false): void {
    this.isFresh = false
    if (this.isDead) {
      this.#events.onUnstarted([...attempts])
      return
    }
    const wasEmpty = this.#held.size === 0
    for (const attempt of attempts) this.#held.set(attempt.id, attempt)
    if (wasEmpty) this.#awaitStart()
    try {
      const body: Buffer[] = []
      this.#process.send({ k: 'run', jobs: attempts.map(attempt => toSlotJob(attempt, isIsolated, body)) }, body)
    } catch (error) {
      // Nothing has left yet. One of them cannot be encoded: sending them one by one finds out which.
      const [first] = attempts
      if (attempts.length === 1 && first !== undefined) this.#reject(first, error)
      else for (const attempt of attempts) this.run([attempt])
    }
  }

  openBlob({ id }: Attempt, part: BlobPart, blob: Blob): void {
    this.isFresh = false
    this.#process.send({ k: 'blob', id, part, blob })
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
      const overdue = [...this.#held.values()].filter(attempt => attempt !== this.#current)
      for (const { id } of overdue) this.#released.add(id)
      this.#release(overdue)
    }, recallWithinMs)
  }

  /**
   * Ends one attempt: aborts its signal, and kills the slot soon after if the handler does not end. Later messages
   * about it are ignored; onOutcome or onUnstarted still comes, and the attempt has its endReason.
   */
  end(attempt: Attempt, endReason: EndReason): void {
    if (!this.#held.has(attempt.id) || attempt.endReason !== undefined) return
    attempt.endReason = endReason
    if (attempt === this.#current) this.#abortCurrent(attempt)
    else this.#process.send({ k: 'recall', seq: ++this.#recallCount, ids: [attempt.id] })
  }

  /** Kills the process and all that it started. @param death its description, when there is more to say */
  kill(death?: AttemptError): void {
    this.#process.kill(death)
  }

  /** @throws Error when a correct slot would not send this now; the reader then ends the slot */
  #receive(message: FromSlot, body: Buffer): void {
    switch (message.k) {
      case 'ready':
        if (this.#state !== 'starting') throw new Error('it said twice that it is ready')
        clearTimeout(this.#readyTimer)
        this.#state = 'ready'
        this.#resolveReady([...message.types])
        this.#events.onChange(this)
        break
      case 'unready':
        this.#rejectReady(new StartupError(message.message))
        break
      case 'start':
        if (this.#current !== undefined) throw new Error('it started a job while another one ran')
        if (!this.#knows(message.id)) throw new Error('it started a job that it has not')
        this.#setCurrent(message.id)
        break
      case 'done':
        if (message.kind === 'json' && message.id === this.#current?.id) checkedJson(body)
        this.#settle(message, { durationMs: message.ms, value: { kind: message.kind, bytes: body } })
        break
      case 'failed':
        this.#settle(message, { durationMs: message.ms, error: toAttemptError(message.error) })
        break
      case 'progress': {
        const { fraction, note } = message
        this.#update(this.#running(message), attempt => {
          attempt.progress = note === undefined ? { fraction } : { fraction, note: note.slice(0, maxNoteChars) }
        })
        break
      }
      case 'log':
        this.#update(this.#running(message), attempt => attempt.addLog(message.lines, message.dropped))
        break
      case 'checkpoint':
        this.#keepCheckpoint(message, body)
        break
      case 'recalled':
        for (const id of message.ids) this.#released.delete(id)
        if (message.seq > this.#recallsOverdue)
          this.#release(message.ids.flatMap(id => (id === this.#current?.id ? undefined : this.#held.get(id)) ?? []))
        break
      case 'fault':
        this.#fault = message
        if (message.id !== this.#current?.id) this.#sparesCurrent = true
        break
    }
  }

  #knows(id: number): boolean {
    return this.#held.has(id) || this.#released.has(id)
  }

  /** The attempt that a message names, if it is the one that runs. */
  #running({ id }: { id: number }): Attempt | undefined {
    return id === this.#current?.id ? this.#current : undefined
  }

  #update(attempt: Attempt | undefined, change: (attempt: Attempt) => void): void {
    if (attempt === undefined || attempt.endReason !== undefined) return
    change(attempt)
    this.#attemptEvents.onUpdate(attempt)
  }

  /** Also of an attempt that is being ended: this is what the time until its kill is for. */
  #keepCheckpoint({ id, seq }: { id: number; seq: number }, body: Buffer): void {
    const attempt = this.#running({ id })
    if (attempt === undefined || attempt.endReason === 'stopped') return
    // The frame's bytes are used again.
    this.#attemptEvents.onCheckpoint(attempt, Buffer.from(body), error =>
      this.#process.send({ k: 'checkpointed', id, seq, ...(error === undefined ? {} : { error }) }),
    )
  }

  #settle({ id, next }: { id: number; next?: number }, outcome: Outcome): void {
    const attempt = this.#running({ id })
    // The running job counts as the cause: a spared one would come again and again.
    if (attempt === undefined && !this.#released.delete(id)) throw new Error('it ended a job that did not run')
    if (next !== undefined && (next === id || !this.#knows(next)))
      throw new Error('it names a next job that it has not')
    this.#held.delete(id)
    this.#setCurrent(next)
    if (attempt !== undefined)
      this.#events.onOutcome(attempt, attempt.endReason === 'timeout' ? timedOut(attempt, outcome.durationMs) : outcome)
    this.#events.onChange(this)
  }

  #setCurrent(id: number | undefined): void {
    clearTimeout(this.#killTimer)
    const attempt = id === undefined ? undefined : this.#held.get(id)
    const wasIdle = this.#current === undefined
    this.#current = attempt
    if (attempt === undefined) {
      this.#awaitStart()
      return
    }
    attempt.startedAtMs = performance.now()
    if (!wasIdle) this.#turnSinceMs = attempt.startedAtMs
    this.#deadline.set(this.#turnSinceMs + attempt.lease.timeoutMs)
    if (attempt.endReason !== undefined) this.#abortCurrent(attempt)
  }

  /** Nothing runs: what is in it should start soon. */
  #awaitStart(): void {
    const [first] = this.#held.values()
    this.#turnSinceMs = performance.now()
    if (first === undefined) this.#deadline.clear()
    else this.#deadline.set(this.#turnSinceMs + Math.min(first.lease.timeoutMs, startWithinMs))
  }

  #onDeadline(): void {
    const [first] = this.#held.values()
    if (this.#current !== undefined) this.end(this.#current, 'timeout')
    else if (first === undefined) return
    else if (performance.now() - this.#turnSinceMs >= startWithinMs)
      this.#process.kill({ code: 'crash', message: `The slot started no job for ${startWithinMs / 1000} s` })
    else {
      this.end(first, 'timeout')
      this.#deadline.set(this.#turnSinceMs + startWithinMs)
    }
  }

  #abortCurrent(attempt: Attempt): void {
    this.#process.send({ k: 'abort', id: attempt.id, ...aborts[attempt.endReason ?? 'stopped'](attempt) })
    clearTimeout(this.#killTimer)
    this.#killTimer = setTimeout(() => {
      const { message } = aborts[attempt.endReason ?? 'stopped'](attempt)
      const late = `and the handler had not ended ${killGraceMs / 1000} s after its signal aborted`
      this.#process.kill({ code: 'crash', message: `The worker ended the slot. ${message}, ${late}` })
    }, killGraceMs)
  }

  #reject(attempt: Attempt, error: unknown): void {
    this.#held.delete(attempt.id)
    this.discardBlobs()
    if (this.#current === undefined) this.#awaitStart()
    this.#events.onOutcome(attempt, { durationMs: 0, error: unreadable(error) })
    this.#events.onChange(this)
  }

  #release(attempts: Attempt[]): void {
    clearTimeout(this.#recallTimer)
    this.#recallTimer = undefined
    for (const attempt of attempts) this.#held.delete(attempt.id)
    if (this.#current === undefined) this.#awaitStart()
    if (attempts.length > 0) this.#events.onUnstarted(attempts)
    this.#events.onChange(this)
  }

  #die(death: AttemptError): void {
    this.#state = 'dead'
    this.death = death
    this.#deadline.clear()
    for (const timer of [this.#readyTimer, this.#killTimer, this.#recallTimer]) clearTimeout(timer)
    this.#rejectReady(new StartupError(`A slot ended while it was starting: ${death.message}`))
    const culprit = this.#culprit()
    const unstarted = [...this.#held.values()].filter(attempt => attempt !== culprit)
    this.#held.clear()
    this.#current = undefined
    if (culprit !== undefined) this.#events.onOutcome(culprit, this.#outcomeOfDeath(culprit, death))
    if (unstarted.length > 0) this.#events.onUnstarted(unstarted)
    this.#events.onDeath(this, this.#fault?.error.message ?? death.message, culprit !== undefined)
  }

  /** The attempt that caused this end, if any: also one that is spared again and again, or never starts. */
  #culprit(): Attempt | undefined {
    if (this.#current !== undefined && (!this.#sparesCurrent || this.#current.endReason !== undefined))
      return this.#current
    const [first] = this.#held.values()
    const suspect = this.#current ?? (this.#sparesCurrent ? undefined : first)
    return suspect?.countFutileStart() ? suspect : undefined
  }

  #outcomeOfDeath(attempt: Attempt, death: AttemptError): Outcome {
    const durationMs = Math.max(0, performance.now() - (attempt.startedAtMs ?? performance.now()))
    if (attempt.endReason === 'timeout') return timedOut(attempt, durationMs)
    if (this.#fault?.id === attempt.id) return { durationMs, error: toAttemptError(this.#fault.error) }
    return { durationMs, error: death }
  }
}
