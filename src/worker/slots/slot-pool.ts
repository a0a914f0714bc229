/**
 * The slots of a worker and the jobs that wait for them.
 *
 *   offer ──▶ buffer ──▶ slot ──▶ onOutcome
 *               │ ▲        │
 *               │ └────────┘ not started: recalled from behind a long job, or the slot died
 *               └─ waited too long, or draining ──▶ onReturn
 *
 * Short jobs are sent several at once. An isolated attempt goes alone into a slot that has run nothing before
 * (slot-supply.ts); jobs that need no such slot pass it by while there is none.
 * A job that must run alone has its turn (exclusive-run.ts): what has not started goes out by onReturn, what runs may finish,
 * then it runs with nothing beside it.
 */

import type { Attempt, Outcome, Verdict } from '../agent/attempt.ts'
import type { FetchOutcome } from '../agent/payload-fetch.ts'
import { ExclusiveRun } from './exclusive-run.ts'
import { FutileHandOvers } from './futile-starts.ts'
import { appetite, JobBuffer, longRunMs } from './prefetch-buffer.ts'
import type { Slot } from './slot.ts'
import { timedOut, unreadable, whileFetching } from './slot-messages.ts'
import type { SlotPoolOptions } from './slot-options.ts'
import type { HandlerDescription } from './slot-protocol.ts'
import { isIdle, SlotSupply } from './slot-supply.ts'

/** A slot with fewer short jobs than this gets more. */
const lowWater = 24
/** A job that runs longer than this must not hold up others behind it in its slot. */
const recallAfterMs = 50
const waitAtMostMs = 1000
const lookEveryMs = 50

export class SlotPool {
  readonly #options: SlotPoolOptions
  readonly #supply: SlotSupply
  readonly #buffer = new JobBuffer(attempt => this.#isIsolated(attempt))
  readonly #exclusive = new ExclusiveRun()
  readonly #futile = new FutileHandOvers()
  readonly #fetching = new Map<Attempt, AbortController>()
  #lookTimer: NodeJS.Timeout | undefined
  #draining = false
  #stopped = false
  #isolatedTypes: ReadonlySet<string> = new Set()

  constructor(options: SlotPoolOptions) {
    this.#options = options
    this.#supply = new SlotSupply({
      ...options,
      events: {
        onOutcome: (attempt, outcome) => this.#onOutcome(attempt, outcome),
        onChange: slot => this.#onChange(slot),
        onUnstarted: attempts => this.#takeBack(attempts),
        onUpdate: options.events.onUpdate,
        onCheckpoint: options.events.onCheckpoint,
      },
      onGone: () => {
        this.#dispatch()
        options.events.onRoom()
      },
    })
  }

  /**
   * Starts the slots; resolves when the first one is ready.
   * @returns the types that it can run
   * @throws StartupError when the handlers cannot be loaded
   */
  async start(): Promise<HandlerDescription[]> {
    const types = await this.#supply.start()
    this.#isolatedTypes = isolatedOf(types)
    return types
  }

  /** Whatever starts from now on runs on these handlers, which can be loaded; what runs ends on those before. */
  replaceHandlers(file: string, types: readonly HandlerDescription[]): void {
    this.#isolatedTypes = isolatedOf(types)
    this.#supply.replaceHandlers(file)
  }

  /** How many more jobs should come. */
  get appetite(): number {
    if (this.#draining || this.#exclusive.isTaken) return 0
    let openSlots = 0
    let takenPlaces = 0
    let heldCount = this.#buffer.size
    for (const slot of this.#supply.all) {
      if (slot.isRetired || slot.runningForMs > longRunMs) {
        takenPlaces += slot.size > 0 || slot.isReplaced ? 1 : 0
      } else if (slot.isReady) {
        openSlots += 1
        heldCount += slot.size + (slot.isReserved ? 1 : 0)
      }
    }
    openSlots = Math.min(openSlots, this.#options.slots - takenPlaces)
    const wanted = appetite({ openSlots, heldCount, expectedMs: this.#buffer.expectedMs(performance.now()) })
    // The next one may have to run alone as well: what came with it would only go back.
    return this.#exclusive.wasLast ? Math.min(1, wanted) : wanted
  }

  /** A slot has nothing to do, and nothing waits for it. */
  get hasIdleSlot(): boolean {
    return this.#buffer.size === 0 && this.#supply.hasPlace && this.#supply.idle.length > 0
  }

  /** Nothing runs, waits or is fetched. */
  get isEmpty(): boolean {
    return this.#exclusive.waiting === undefined && this.#buffer.size === 0 && this.#isQuiet
  }

  get pids(): number[] {
    return [...this.#supply.all].flatMap(slot => slot.pid ?? [])
  }

  /** It waits, is fetched or is in a slot here. */
  has(attempt: Attempt): boolean {
    if (this.#buffer.has(attempt) || this.#fetching.has(attempt) || this.#exclusive.waiting === attempt) return true
    for (const slot of this.#supply.all) if (slot.has(attempt)) return true
    return false
  }

  /** Takes jobs in; each comes out again by exactly one of onOutcome, onReturn and onForgotten. */
  offer(attempts: readonly Attempt[]): void {
    if (this.#draining) {
      this.#give([...attempts])
      return
    }
    for (const attempt of attempts) this.#futile.resume(attempt)
    const wasTaken = this.#exclusive.isTaken
    const rest = this.#exclusive.admit(attempts)
    if (!this.#exclusive.isTaken) {
      this.#buffer.append(attempts)
      this.#dispatch()
      return
    }
    this.#give(rest)
    if (!wasTaken) this.#clear()
    this.#startExclusive()
  }

  /** Ends an attempt wherever it is. */
  end(attempt: Attempt, verdict: Verdict): void {
    if (attempt.verdict !== undefined) return
    if (this.#buffer.remove(attempt) || this.#exclusive.waiting === attempt) {
      attempt.verdict = verdict
      this.#forget([attempt])
    } else if (this.#fetching.has(attempt)) {
      attempt.verdict = verdict
      this.#fetching.get(attempt)?.abort()
    } else {
      for (const slot of this.#supply.all) slot.end(attempt, verdict)
    }
  }

  /** From now on nothing starts: what waits goes out by onReturn, what runs may finish. */
  drain(): void {
    this.#draining = true
    if (this.#exclusive.waiting !== undefined) this.#give([this.#exclusive.waiting])
    this.#clear()
  }

  /** Kills all slots. What was in them is gone without a word. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#lookTimer)
    for (const controller of this.#fetching.values()) controller.abort()
    this.#supply.stop()
  }

  /** Resolves when all killed slots are gone, or after a second. */
  async ended(): Promise<void> {
    await this.#supply.ended()
  }

  #isIsolated({ lease }: Attempt): boolean {
    return lease.isolation === 'process' || this.#options.isolation === 'process' || this.#isolatedTypes.has(lease.type)
  }

  /** No slot has anything. */
  get #isQuiet(): boolean {
    return this.#fetching.size === 0 && [...this.#supply.all].every(slot => slot.size === 0)
  }

  /** What has not started goes back. */
  #clear(): void {
    this.#give(this.#buffer.takeAll())
    for (const controller of this.#fetching.values()) controller.abort()
    for (const slot of this.#supply.all) if (slot.size > 0) slot.recall()
  }

  /** Not before the nodes know that nothing else is here: else this job would not be blamed alone if the worker is lost. */
  #startExclusive(): void {
    const attempt = this.#exclusive.waiting
    if (attempt === undefined) return
    const isIsolated = this.#isIsolated(attempt)
    const slot = this.#supply.idle.find(({ isFresh }) => isFresh || !isIsolated)
    if (slot !== undefined && this.#isQuiet && this.#options.isOnlyLease(attempt)) {
      this.#exclusive.begin()
      this.#buffer.append([attempt])
      this.#feed(slot)
    } else {
      if (isIsolated) this.#supply.freshen(1)
      this.#keepLooking()
    }
  }

  #onOutcome(attempt: Attempt, outcome: Outcome): void {
    if (attempt.verdict !== undefined && attempt.verdict !== 'timeout') {
      this.#forget([attempt])
      return
    }
    this.#supply.worked()
    this.#buffer.observe(attempt, outcome.durationMs, performance.now())
    this.#exclusive.left([attempt])
    this.#options.events.onOutcome(attempt, outcome)
  }

  #onChange(slot: Slot): void {
    this.#startExclusive()
    if (slot.size === 0) this.#freshen()
    if (this.#buffer.size > 0 && this.#canFeed(slot)) this.#feed(slot)
    this.#supply.endRetired(slot)
    if (slot.size === 0) this.#options.events.onRoom()
  }

  /** Jobs that did not start in their slot: to the head of the line again. */
  #takeBack(attempts: Attempt[]): void {
    for (const attempt of attempts)
      if (attempt.verdict === 'timeout') this.#onOutcome(attempt, timedOut(attempt, attempt.lease.timeoutMs))
    this.#forget(attempts.filter(({ verdict }) => verdict !== undefined && verdict !== 'timeout'))
    const rest = attempts.filter(attempt => attempt.verdict === undefined)
    if (this.#draining || this.#exclusive.isTaken) {
      this.#give(rest)
      return
    }
    // A node ends an attempt at its run-time limit and a few leases after the claim: one that began anew late would not be done by then.
    const sinceMs = performance.now() - this.#options.leaseMs()
    this.#give(rest.filter(({ claimedAtMs }) => claimedAtMs < sinceMs))
    this.#buffer.prepend(rest.filter(({ claimedAtMs }) => claimedAtMs >= sinceMs))
    this.#dispatch()
  }

  #give(attempts: Attempt[]): void {
    for (const attempt of attempts) this.#futile.remember(attempt)
    this.#exclusive.left(attempts)
    if (attempts.length > 0) this.#options.events.onReturn(attempts)
  }

  #forget(attempts: Attempt[]): void {
    this.#exclusive.left(attempts)
    if (attempts.length > 0) this.#options.events.onForgotten(attempts)
  }

  #dispatch(): void {
    if (this.#stopped || this.#buffer.size === 0) return
    this.#freshen()
    for (const slot of [...this.#supply.idle, ...this.#supply.all]) {
      if (this.#buffer.size === 0) break
      if (this.#canFeed(slot)) this.#feed(slot)
    }
    this.#keepLooking()
  }

  #freshen(): void {
    const { isolatedCount } = this.#buffer
    if (isolatedCount > 0) this.#supply.freshen(isolatedCount)
  }

  #canFeed(slot: Slot): boolean {
    if (isIdle(slot)) return this.#supply.hasPlace
    if (
      slot.isRetired ||
      !slot.takesMore ||
      slot.size > lowWater ||
      !slot.isReady ||
      slot.isReserved ||
      slot.isRecalling
    )
      return false
    return slot.runningForMs < recallAfterMs && this.#buffer.isNextShort(slot.isFresh)
  }

  /** Sends the next job to a slot, and more with it when they are short. */
  #feed(slot: Slot): void {
    slot.takesMore = this.#buffer.isNextShort(slot.isFresh)
    const taken = this.#buffer.takeBatch(this.#options.slots, slot.isFresh)
    const batch = taken.filter(attempt => this.#isGood(attempt))
    const [first] = batch
    if (first === undefined) {
      if (taken.length > 0) this.#feed(slot)
      return
    }
    if (first.hasBlobs) {
      void this.#fetchInto(slot, first)
      // Nothing is taken out of the buffer that no slot gets.
      if (batch.length > 1) this.#buffer.prepend(batch.slice(1))
      return
    }
    this.#supply.hand(slot, batch, this.#isIsolated(first))
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
    const mustGo = this.#draining || (this.#exclusive.isTaken && !this.#exclusive.isTurnOf(attempt))
    if (outcome.kind === 'ready' && attempt.verdict === undefined && !slot.isDead && !slot.isRetired && !mustGo) {
      slot.takesMore = false
      this.#supply.hand(slot, [attempt], this.#isIsolated(attempt))
      return
    }
    slot.discardBlobs()
    // A part of it has been in there.
    if (this.#isIsolated(attempt)) slot.isRetired = true
    if (attempt.verdict !== undefined) this.#forget([attempt])
    else if (mustGo || outcome.kind === 'away') this.#give([attempt])
    else if (outcome.kind === 'failed') this.#onOutcome(attempt, { durationMs: 0, error: outcome.error })
    else if (outcome.kind === 'lost') this.#forget([attempt])
    else if (slot.death !== undefined && attempt.countFutileHandOver())
      this.#onOutcome(attempt, { durationMs: 0, error: whileFetching(slot.death) })
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
    this.#startExclusive()
    let isWaiting = this.#buffer.size > 0
    for (const slot of this.#supply.all) {
      if (slot.size <= 1) continue
      isWaiting = true
      if (slot.runningForMs > recallAfterMs) slot.recall()
    }
    if (isWaiting) this.#keepLooking()
  }
}

const isolatedOf = (types: readonly HandlerDescription[]): Set<string> =>
  new Set(types.flatMap(({ type, isolation }) => (isolation === 'process' ? [type] : [])))
