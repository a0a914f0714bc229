/**
 * The slots of a worker and the jobs that wait for them.
 *
 *   offer ──▶ buffer ──▶ slot ──▶ onOutcome
 *               │ ▲        │
 *               │ └────────┘ not started: recalled from behind a long job, or the slot died
 *               └─ waited too long, or draining ──▶ onReturn
 *
 * Short jobs are sent several at once. A slot that died is replaced; one that keeps failing to start, ever later.
 * When the handlers are replaced, each slot makes room for one with the new ones as soon as nothing runs in it.
 * A job that must run alone has its turn (alone-turn.ts): what has not started goes out by onReturn, what runs may finish,
 * then it runs with nothing beside it.
 */
import { AloneTurn } from './alone-turn.ts'
import { appetite, longRunMs } from './appetite.ts'
import type { Attempt, Outcome, Verdict } from './attempt.ts'
import { Backoff, pause } from './backoff.ts'
import { JobBuffer } from './job-buffer.ts'
import type { FetchOutcome } from './payload-fetch.ts'
import { Slot, type SlotEvents } from './slot.ts'
import type { SlotPoolOptions } from './slot-pool-options.ts'
import type { HandlerDescription } from './slot-protocol.ts'
import { timedOut, unreadable } from './slot-words.ts'

/** A slot with fewer short jobs than this gets more. */
const lowWater = 24
/** A job that runs longer than this must not hold up others behind it in its slot. */
const recallAfterMs = 50
const waitAtMostMs = 1000
const lookEveryMs = 50

export class SlotPool {
  readonly #options: SlotPoolOptions
  readonly #slots = new Set<Slot>()
  readonly #buffer = new JobBuffer()
  readonly #alone = new AloneTurn()
  readonly #fetching = new Map<Attempt, AbortController>()
  readonly #respawns = new Set<NodeJS.Timeout>()
  readonly #spawnBackoff = new Backoff(100, 30_000)
  #lookTimer: NodeJS.Timeout | undefined
  #draining = false
  #stopped = false
  #handlersFile: string | undefined

  constructor(options: SlotPoolOptions) {
    this.#options = options
    this.#handlersFile = options.handlersFile
  }

  /**
   * Starts the slots; resolves when the first one is ready.
   * @returns the types that it can run
   * @throws StartupError when the handlers cannot be loaded
   */
  async start(): Promise<HandlerDescription[]> {
    const first = this.#spawn()
    const types = await first.ready
    for (let count = 1; count < this.#options.slots; count++) this.#trySpawn()
    return types
  }

  /** Whatever starts from now on runs on these handlers, which can be loaded; what runs ends on those before. */
  replaceHandlers(file: string): void {
    this.#handlersFile = file
    for (const slot of [...this.#slots]) {
      slot.isRetired = true
      if (slot.size > 0) slot.recall()
      this.#endRetired(slot)
    }
  }

  /** How many more jobs should come. */
  get appetite(): number {
    if (this.#draining || this.#alone.isTaken) return 0
    let openSlots = 0
    let heldCount = this.#buffer.size
    for (const slot of this.#slots) {
      if (!slot.isReady || slot.isRetired || slot.runningForMs > longRunMs) continue
      openSlots += 1
      heldCount += slot.size + (slot.isReserved ? 1 : 0)
    }
    const wanted = appetite({ openSlots, heldCount, expectedMs: this.#buffer.expectedMs(performance.now()) })
    // The next one may have to run alone as well: what came with it would only go back.
    return this.#alone.wasLast ? Math.min(1, wanted) : wanted
  }

  /** A slot has nothing to do, and nothing waits for it. */
  get hasIdleSlot(): boolean {
    if (this.#buffer.size > 0) return false
    for (const slot of this.#slots) if (isIdle(slot)) return true
    return false
  }

  /** Nothing runs, waits or is fetched. */
  get isEmpty(): boolean {
    return this.#alone.waiting === undefined && this.#buffer.size === 0 && this.#isQuiet
  }

  get pids(): number[] {
    return [...this.#slots].flatMap(slot => slot.pid ?? [])
  }

  /** It waits, is fetched or is in a slot here. */
  has(attempt: Attempt): boolean {
    if (this.#buffer.has(attempt) || this.#fetching.has(attempt) || this.#alone.waiting === attempt) return true
    for (const slot of this.#slots) if (slot.has(attempt)) return true
    return false
  }

  /** Takes jobs in; each comes out again by exactly one of onOutcome, onReturn and onForgotten. */
  offer(attempts: readonly Attempt[]): void {
    if (this.#draining) {
      this.#give([...attempts])
      return
    }
    const wasTaken = this.#alone.isTaken
    const rest = this.#alone.admit(attempts)
    if (!this.#alone.isTaken) {
      this.#buffer.append(attempts)
      this.#dispatch()
      return
    }
    this.#give(rest)
    if (!wasTaken) this.#clear()
    this.#startAlone()
  }

  /** Ends an attempt wherever it is. */
  end(attempt: Attempt, verdict: Verdict): void {
    if (attempt.verdict !== undefined) return
    if (this.#buffer.remove(attempt) || this.#alone.waiting === attempt) {
      attempt.verdict = verdict
      this.#forget([attempt])
    } else if (this.#fetching.has(attempt)) {
      attempt.verdict = verdict
      this.#fetching.get(attempt)?.abort()
    } else {
      for (const slot of this.#slots) slot.end(attempt, verdict)
    }
  }

  /** From now on nothing starts: what waits goes out by onReturn, what runs may finish. */
  drain(): void {
    this.#draining = true
    if (this.#alone.waiting !== undefined) this.#give([this.#alone.waiting])
    this.#clear()
  }

  /** The attempts that run now. */
  get running(): Attempt[] {
    return [...this.#slots].flatMap(slot => slot.current ?? [])
  }

  /** Kills all slots. What was in them is gone without a word. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#lookTimer)
    for (const timer of this.#respawns) clearTimeout(timer)
    for (const controller of this.#fetching.values()) controller.abort()
    for (const slot of this.#slots) slot.kill()
  }

  /** Resolves when all killed slots are gone, or after a second. */
  async ended(): Promise<void> {
    const never = new AbortController().signal
    for (let look = 0; look < 40 && this.#slots.size > 0; look++) await pause(25, never)
  }

  /** No slot has anything. */
  get #isQuiet(): boolean {
    return this.#fetching.size === 0 && [...this.#slots].every(slot => slot.size === 0)
  }

  /** What has not started goes back. */
  #clear(): void {
    this.#give(this.#buffer.takeAll())
    for (const controller of this.#fetching.values()) controller.abort()
    for (const slot of this.#slots) if (slot.size > 0) slot.recall()
  }

  /** Not before the nodes know that nothing else is here: else this job would not be blamed alone if the worker is lost. */
  #startAlone(): void {
    const attempt = this.#alone.waiting
    if (attempt === undefined) return
    const slot = [...this.#slots].find(isIdle)
    if (slot !== undefined && this.#isQuiet && this.#options.isOnlyLease(attempt)) {
      this.#alone.begin()
      this.#buffer.append([attempt])
      this.#feed(slot)
    } else {
      this.#keepLooking()
    }
  }

  #trySpawn(): void {
    try {
      this.#spawn()
    } catch (error) {
      this.#options.log.warn({ err: error }, 'a slot could not be started')
      this.#respawnLater()
    }
  }

  #spawn(): Slot {
    const { heapMb, maxBodyBytes, passEnv } = this.#options
    const handlersFile = this.#handlersFile
    const events: SlotEvents = {
      onOutcome: (attempt, outcome) => this.#onOutcome(attempt, outcome),
      onChange: slot => this.#onChange(slot),
      onUnstarted: attempts => this.#takeBack(attempts),
      onDeath: (slot, reason, hadJob) => this.#onDeath(slot, reason, hadJob),
      onUpdate: this.#options.events.onUpdate,
      onCheckpoint: this.#options.events.onCheckpoint,
    }
    const slot = new Slot({ handlersFile, heapMb, maxBodyBytes, passEnv, events })
    this.#slots.add(slot)
    return slot
  }

  #onDeath(slot: Slot, reason: string, hadJob: boolean): void {
    this.#slots.delete(slot)
    if (this.#stopped) return
    if (!slot.isRetired) this.#options.log.warn({ pid: slot.pid, reason }, 'a slot ended')
    // A job took it down: the next one need not suffer. Else it would soon end again.
    if (hadJob || slot.isRetired) this.#trySpawn()
    else this.#respawnLater()
  }

  #endRetired(slot: Slot): void {
    if (slot.isRetired && slot.size === 0 && !slot.isReserved) slot.kill()
  }

  #respawnLater(): void {
    const timer = setTimeout(() => {
      this.#respawns.delete(timer)
      if (!this.#stopped) this.#trySpawn()
    }, this.#spawnBackoff.nextMs())
    this.#respawns.add(timer)
  }

  #onOutcome(attempt: Attempt, outcome: Outcome): void {
    if (attempt.verdict !== undefined && attempt.verdict !== 'timeout') {
      this.#forget([attempt])
      return
    }
    this.#spawnBackoff.reset()
    this.#buffer.observe(attempt.lease.type, outcome.durationMs, performance.now())
    this.#alone.left([attempt])
    this.#options.events.onOutcome(attempt, outcome)
  }

  #onChange(slot: Slot): void {
    this.#startAlone()
    if (this.#buffer.size > 0 && this.#canFeed(slot)) this.#feed(slot)
    this.#endRetired(slot)
    if (slot.size === 0) this.#options.events.onRoom()
  }

  /** Jobs that did not start in their slot: to the head of the line again. */
  #takeBack(attempts: Attempt[]): void {
    for (const attempt of attempts)
      if (attempt.verdict === 'timeout') this.#onOutcome(attempt, timedOut(attempt, attempt.lease.timeoutMs))
    this.#forget(attempts.filter(({ verdict }) => verdict !== undefined && verdict !== 'timeout'))
    const rest = attempts.filter(attempt => attempt.verdict === undefined)
    if (this.#draining || this.#alone.isTaken) {
      this.#give(rest)
      return
    }
    this.#buffer.prepend(rest)
    this.#dispatch()
  }

  #give(attempts: Attempt[]): void {
    this.#alone.left(attempts)
    if (attempts.length > 0) this.#options.events.onReturn(attempts)
  }

  #forget(attempts: Attempt[]): void {
    this.#alone.left(attempts)
    if (attempts.length > 0) this.#options.events.onForgotten(attempts)
  }

  #dispatch(): void {
    for (const slot of this.#slots) {
      if (this.#buffer.size === 0) break
      if (isIdle(slot)) this.#feed(slot)
    }
    for (const slot of this.#slots) {
      if (this.#buffer.size === 0) break
      if (this.#canFeed(slot)) this.#feed(slot)
    }
    this.#keepLooking()
  }

  #canFeed(slot: Slot): boolean {
    if (isIdle(slot)) return true
    if (
      slot.isRetired ||
      !slot.takesMore ||
      slot.size > lowWater ||
      !slot.isReady ||
      slot.isReserved ||
      slot.isRecalling
    )
      return false
    return slot.runningForMs < recallAfterMs && this.#buffer.isNextShort
  }

  /** Sends the next job to a slot, and more with it when they are short. */
  #feed(slot: Slot): void {
    slot.takesMore = this.#buffer.isNextShort
    const batch = this.#buffer.takeBatch(this.#slots.size).filter(attempt => this.#isGood(attempt))
    const [first] = batch
    if (first === undefined) {
      if (this.#buffer.size > 0) this.#feed(slot)
      return
    }
    if (first.hasBlobs) {
      void this.#fetchInto(slot, first)
      // Nothing is taken out of the buffer that no slot gets.
      if (batch.length > 1) this.#buffer.prepend(batch.slice(1))
      return
    }
    slot.run(batch)
    if (batch.length > 1) this.#keepLooking()
  }

  #isGood(attempt: Attempt): boolean {
    const isGood = this.#options.isLeaseGood(attempt)
    if (!isGood) this.#forget([attempt])
    return isGood
  }

  async #fetchInto(slot: Slot, attempt: Attempt): Promise<void> {
    const controller = new AbortController()
    slot.isReserved = true
    this.#fetching.set(attempt, controller)
    const outcome = await this.#fetched(attempt, slot, controller.signal)
    this.#fetching.delete(attempt)
    slot.isReserved = false
    const mustGo = this.#draining || (this.#alone.isTaken && !this.#alone.isTurnOf(attempt))
    if (outcome.kind === 'ready' && attempt.verdict === undefined && !slot.isDead && !slot.isRetired && !mustGo) {
      slot.takesMore = false
      slot.run([attempt])
      return
    }
    slot.discardBlobs()
    if (attempt.verdict !== undefined) this.#forget([attempt])
    else if (mustGo || outcome.kind === 'away') this.#give([attempt])
    else if (outcome.kind === 'failed') this.#onOutcome(attempt, { durationMs: 0, error: outcome.error })
    else if (outcome.kind === 'lost') this.#forget([attempt])
    else this.#takeBack([attempt])
    this.#onChange(slot)
  }

  async #fetched(attempt: Attempt, slot: Slot, signal: AbortSignal): Promise<FetchOutcome> {
    try {
      return await this.#options.fetchBlobs(attempt, slot, signal)
    } catch (error) {
      return { kind: 'failed', error: unreadable(error) }
    }
  }

  /** While jobs wait, looks now and then whether they wait too long. */
  #keepLooking(): void {
    if (this.#lookTimer !== undefined || this.#stopped) return
    this.#lookTimer = setTimeout(() => {
      this.#lookTimer = undefined
      this.#look()
    }, lookEveryMs)
  }

  #look(): void {
    this.#give(this.#buffer.takeClaimedBefore(performance.now() - waitAtMostMs))
    this.#startAlone()
    let isWaiting = this.#buffer.size > 0
    for (const slot of this.#slots) {
      if (slot.size <= 1) continue
      isWaiting = true
      if (slot.runningForMs > recallAfterMs) slot.recall()
    }
    if (isWaiting) this.#keepLooking()
  }
}

const isIdle = (slot: Slot): boolean =>
  slot.isReady && !slot.isRetired && slot.size === 0 && !slot.isReserved && !slot.isRecalling
