/**
 * Keeps a worker supplied with slots, as many as it has jobs at once:
 *
 *   starting ──▶ fresh ──any job──▶ used ──died, or retired and empty──▶ another one starts
 *                  └─ an isolated attempt ──▶ retired; another one starts at once, and is ready when this attempt ends
 *
 * A slot that died is replaced; one that keeps failing to start, ever later. When the handlers are replaced, each slot
 * makes room for one with the new ones as soon as nothing runs in it.
 */

import { Backoff, pause } from '../../retry.ts'
import type { Attempt } from '../attempts/attempt.ts'
import type { HandlerDescription } from '../protocol/slot-protocol.ts'
import { Slot, type SlotEvents } from './slot.ts'
import { MemoryWatch } from './slot-memory.ts'
import type { SlotPoolOptions } from './slot-options.ts'

export type SlotSupplyOptions = Pick<
  SlotPoolOptions,
  'slots' | 'heapMb' | 'memoryMb' | 'maxBodyBytes' | 'passEnv' | 'handlersFile' | 'log' | 'attempts'
> & {
  readonly events: Omit<SlotEvents, 'onDeath'>
  /** A slot ended: its place is free. */
  readonly onGone: () => void
}

export class SlotSupply {
  readonly #options: SlotSupplyOptions
  readonly #slots = new Set<Slot>()
  readonly #respawns = new Set<NodeJS.Timeout>()
  readonly #spawnBackoff = new Backoff(100, 30_000)
  readonly #memory: MemoryWatch
  #stopped = false
  #handlersFile: string | undefined

  constructor(options: SlotSupplyOptions) {
    this.#options = options
    this.#handlersFile = options.handlersFile
    this.#memory = new MemoryWatch({ limitMb: options.memoryMb, slots: () => this.#slots, log: options.log })
  }

  /**
   * Starts the slots; resolves when the first one is ready.
   * @returns the types that it can run
   * @throws StartupError when the handlers cannot be loaded
   */
  async start(): Promise<HandlerDescription[]> {
    const first = this.#spawn()
    this.#memory.start()
    const types = await first.ready
    for (let count = 1; count < this.#options.slots; count++) this.#trySpawn()
    return types
  }

  /** All that live. While isolated attempts run there are more of them than may run jobs at once. */
  get all(): ReadonlySet<Slot> {
    return this.#slots
  }

  /**
   * One more slot may get a job. One that ran an isolated attempt keeps its place until it is gone, with all that it
   * started.
   */
  get hasPlace(): boolean {
    let busy = 0
    for (const slot of this.#slots) if (slot.size > 0 || slot.isReserved || slot.isReplaced) busy += 1
    return busy < this.#options.slots
  }

  /** The idle ones, those that have run a job first: fresh ones are kept for isolated attempts. */
  get idle(): Slot[] {
    const idle = [...this.#slots].filter(isIdle)
    return [...idle.filter(slot => !slot.isFresh), ...idle.filter(slot => slot.isFresh)]
  }

  /** Sends jobs to a slot. A slot that gets an isolated job runs nothing else. */
  assign(slot: Slot, batch: readonly Attempt[], isIsolated: boolean): void {
    if (isIsolated) {
      slot.isRetired = true
      slot.isReplaced = true
      this.#trySpawn()
    }
    slot.run(batch, isIsolated)
  }

  /** So many isolated attempts wait: idle fresh slots replace idle ones that have run jobs. */
  freshen(waiting: number): void {
    let fresh = 0
    for (const slot of this.#slots) if (slot.isFresh && !slot.isRetired && !slot.isDead) fresh += 1
    for (const slot of this.idle) {
      if (fresh >= waiting) return
      if (slot.isFresh) continue
      slot.isRetired = true
      slot.isReplaced = true
      slot.kill()
      this.#trySpawn()
      fresh += 1
    }
  }

  /** Jobs that start from now on run on these handlers, which can be loaded; running jobs end on the old ones. */
  replaceHandlers(file: string): void {
    this.#handlersFile = file
    for (const slot of [...this.#slots]) {
      slot.isRetired = true
      if (slot.size > 0) slot.recall()
      this.endRetired(slot)
    }
  }

  endRetired(slot: Slot): void {
    if (slot.isRetired && slot.size === 0 && !slot.isReserved) slot.kill()
  }

  /** A job has ended: slots can be started. */
  worked(): void {
    this.#spawnBackoff.reset()
  }

  /** Kills all slots. No event comes for what was in them. */
  stop(): void {
    this.#stopped = true
    this.#memory.stop()
    for (const timer of this.#respawns) clearTimeout(timer)
    for (const slot of this.#slots) slot.kill()
  }

  /** Resolves when all killed slots are gone, or after a second. */
  async ended(): Promise<void> {
    const never = new AbortController().signal
    for (let look = 0; look < 40 && this.#slots.size > 0; look++) await pause(25, never)
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
    const { heapMb, maxBodyBytes, passEnv, events, attempts } = this.#options
    const slot = new Slot({
      ...{ handlersFile: this.#handlersFile, heapMb, maxBodyBytes, passEnv },
      attemptEvents: attempts.events,
      events: { ...events, onDeath: (gone, reason, hadJob) => this.#onDeath(gone, reason, hadJob) },
    })
    this.#slots.add(slot)
    return slot
  }

  #onDeath(slot: Slot, reason: string, hadJob: boolean): void {
    this.#slots.delete(slot)
    if (this.#stopped) return
    if (hadJob || !slot.isRetired) this.#options.log.warn({ pid: slot.pid, reason }, 'a slot ended')
    if (!slot.isReplaced) {
      // A job took it down: the next one need not suffer. Else it would soon end again.
      if (hadJob || slot.isRetired) this.#trySpawn()
      else this.#respawnLater()
    }
    this.#options.onGone()
  }

  #respawnLater(): void {
    const timer = setTimeout(() => {
      this.#respawns.delete(timer)
      if (!this.#stopped) this.#trySpawn()
    }, this.#spawnBackoff.nextMs())
    this.#respawns.add(timer)
  }
}

export const isIdle = (slot: Slot): boolean =>
  slot.isReady && !slot.isRetired && slot.size === 0 && !slot.isReserved && !slot.isRecalling
