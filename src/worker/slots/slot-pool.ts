/**
 * The slots of a worker and the jobs that wait for them.
 *
 *   offer ──▶ buffer ──▶ slot ──▶ onOutcome
 *               │ ▲        │
 *               │ └────────┘ not started: recalled from behind a long job, or the slot died
 *               └─ waited too long, or draining ──▶ onRequeue
 *
 * Short jobs are sent several at once. An isolated attempt goes by itself into a slot that has run nothing before
 * (slot-supply.ts); jobs that need no such slot pass it by while there is none.
 * A job that must run exclusively has its turn (exclusive-run.ts): what has not started goes out by onRequeue, what
 * runs may finish, then it runs with nothing beside it.
 */

import type { Attempt, EndReason, Outcome } from '../attempts/attempt.ts'
import type { HandlerDescription } from '../protocol/slot-protocol.ts'
import { ExclusiveRun } from './exclusive-run.ts'
import { FutileStarts } from './futile-starts.ts'
import { longRunMs, PrefetchBuffer, prefetchCount } from './prefetch-buffer.ts'
import type { Slot } from './slot.ts'
import { timedOut, unreadable, whileFetching } from './slot-messages.ts'
import type { FetchOutcome, SlotPoolOptions } from './slot-options.ts'
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
  readonly #buffer = new PrefetchBuffer(attempt => this.#isIsolated(attempt))
  readonly #exclusive = new ExclusiveRun()
  readonly #futile = new FutileStarts()
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
        onUnstarted: attempts => this.#onUnstarted(attempts),
      },
      onGone: () => {
        this.#dispatch()
        options.attempts.events.onRoom()
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

  /** Jobs that start from now on run on these handlers, which can be loaded; running jobs end on the old ones. */
  replaceHandlers(file: string, types: readonly HandlerDescription[]): void {
    this.#isolatedTypes = isolatedOf(types)
    this.#supply.replaceHandlers(file)
  }

  /** How many more jobs should come. */
  get prefetch(): number {
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
    const count = prefetchCount({ openSlots, heldCount, expectedMs: this.#buffer.expectedMs(performance.now()) })
    // The next one may need an exclusive run as well: what came with it would only be requeued.
    return this.#exclusive.wasLast ? Math.min(1, count) : count
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

  /** Takes jobs in; each comes out again by exactly one of onOutcome and onRequeue, or is removed from the table. */
  offer(attempts: readonly Attempt[]): void {
    if (this.#draining) {
      this.#requeue([...attempts])
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
    this.#requeue(rest)
    if (!wasTaken) this.#clear()
    this.#startExclusive()
  }

  /** Ends an attempt wherever it is. */
  end(attempt: Attempt, endReason: EndReason): void {
    if (attempt.endReason !== undefined) return
    if (this.#buffer.remove(attempt) || this.#exclusive.waiting === attempt) {
      attempt.endReason = endReason
      this.#forget([attempt])
    } else if (this.#fetching.has(attempt)) {
      attempt.endReason = endReason
      this.#fetching.get(attempt)?.abort()
    } else {
      for (const slot of this.#supply.all) slot.end(attempt, endReason)
    }
  }

  /** From now on nothing starts: what waits goes out by onRequeue, what runs may finish. */
  drain(): void {
    this.#draining = true
    if (this.#exclusive.waiting !== undefined) this.#requeue([this.#exclusive.waiting])
    this.#clear()
  }

  /** Kills all slots. No event comes for what was in them. */
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

  /** Requeues what has not started. */
  #clear(): void {
    this.#requeue(this.#buffer.takeAll())
    for (const controller of this.#fetching.values()) controller.abort()
    for (const slot of this.#supply.all) if (slot.size > 0) slot.recall()
  }

  /**
   * Not before the nodes know that nothing else is here: else they would also count the loss of the worker against
   * other jobs.
   */
  #startExclusive(): void {
    const attempt = this.#exclusive.waiting
    if (attempt === undefined) return
    const isIsolated = this.#isIsolated(attempt)
    const slot = this.#supply.idle.find(({ isFresh }) => isFresh || !isIsolated)
    if (slot !== undefined && this.#isQuiet && this.#options.attempts.isOnly(attempt)) {
      this.#exclusive.begin()
      this.#buffer.append([attempt])
      this.#feed(slot)
    } else {
      if (isIsolated) this.#supply.freshen(1)
      this.#keepLooking()
    }
  }

  #onOutcome(attempt: Attempt, outcome: Outcome): void {
    if (attempt.endReason !== undefined && attempt.endReason !== 'timeout') {
      this.#forget([attempt])
      return
    }
    this.#supply.worked()
    this.#buffer.observe(attempt, outcome.durationMs, performance.now())
    this.#exclusive.left([attempt])
    this.#options.attempts.events.onOutcome(attempt, outcome)
  }

  #onChange(slot: Slot): void {
    this.#startExclusive()
    if (slot.size === 0) this.#freshen()
    if (this.#buffer.size > 0 && this.#canFeed(slot)) this.#feed(slot)
    this.#supply.endRetired(slot)
    if (slot.size === 0) this.#options.attempts.events.onRoom()
  }

  /** Jobs that did not start in their slot go to the head of the buffer again. */
  #onUnstarted(attempts: Attempt[]): void {
    for (const attempt of attempts)
      if (attempt.endReason === 'timeout') this.#onOutcome(attempt, timedOut(attempt, attempt.lease.timeoutMs))
    this.#forget(attempts.filter(({ endReason }) => endReason !== undefined && endReason !== 'timeout'))
    const rest = attempts.filter(attempt => attempt.endReason === undefined)
    if (this.#draining || this.#exclusive.isTaken) {
      this.#requeue(rest)
      return
    }
    // A node ends an attempt at its run-time limit and a few leases after the claim: a late second start would not end
    // by then.
    const sinceMs = performance.now() - this.#options.attempts.leaseMs
    this.#requeue(rest.filter(({ claimedAtMs }) => claimedAtMs < sinceMs))
    this.#buffer.prepend(rest.filter(({ claimedAtMs }) => claimedAtMs >= sinceMs))
    this.#dispatch()
  }

  #requeue(attempts: Attempt[]): void {
    for (const attempt of attempts) this.#futile.remember(attempt)
    this.#exclusive.left(attempts)
    if (attempts.length > 0) this.#options.attempts.events.onRequeue(attempts)
  }

  #forget(attempts: Attempt[]): void {
    this.#exclusive.left(attempts)
    if (attempts.length > 0) this.#options.attempts.remove(attempts)
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
    this.#supply.assign(slot, batch, this.#isIsolated(first))
    if (batch.length > 1) this.#keepLooking()
  }

  #isGood(attempt: Attempt): boolean {
    const isGood = this.#options.attempts.isGood(attempt)
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
    if (outcome.kind === 'ready' && attempt.endReason === undefined && !slot.isDead && !slot.isRetired && !mustGo) {
      slot.takesMore = false
      this.#supply.assign(slot, [attempt], this.#isIsolated(attempt))
      return
    }
    slot.discardBlobs()
    // A part of it has been in there.
    if (this.#isIsolated(attempt)) slot.isRetired = true
    if (attempt.endReason !== undefined) this.#forget([attempt])
    else if (mustGo || outcome.kind === 'away') this.#requeue([attempt])
    else if (outcome.kind === 'failed') this.#onOutcome(attempt, { durationMs: 0, error: outcome.error })
    else if (outcome.kind === 'lost') this.#forget([attempt])
    else if (slot.death !== undefined && attempt.countFutileStart())
      this.#onOutcome(attempt, { durationMs: 0, error: whileFetching(slot.death) })
    else this.#onUnstarted([attempt])
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
    this.#requeue(this.#buffer.takeClaimedBefore(performance.now() - waitAtMostMs))
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
