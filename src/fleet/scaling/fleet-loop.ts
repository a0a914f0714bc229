/**
 * The shape of every loop in the fleet: start, runOnce, stop. Stopped → waiting ⇄ running → stopped.
 * Runs never overlap. A failed run is logged once, not each time, and once more when it works again. `wake` runs early,
 * but not sooner than minGapMs after the last run began, however often it is called.
 */
import type { FastifyBaseLogger } from 'fastify'

export interface LoopOptions<Result> {
  readonly name: string
  readonly intervalMs: number
  readonly run: () => Promise<Result>
  readonly log: FastifyBaseLogger
}

const minGapMs = 100

export class Loop<Result> {
  readonly #options: LoopOptions<Result>
  #running: Promise<Result> | undefined
  #timer: NodeJS.Timeout | undefined
  #dueAt = 0
  #startedAt = 0
  #failures = 0
  #wokenWhileRunning = false
  #active = false

  constructor(options: LoopOptions<Result>) {
    this.#options = options
  }

  /** Runs at once and then every intervalMs, give or take a tenth. Calling twice is safe. */
  start(): void {
    if (this.#active) return
    this.#active = true
    this.#schedule(0)
  }

  /** Runs soon. Does nothing when the loop is stopped. */
  wake(): void {
    if (!this.#active) return
    if (this.#running !== undefined) {
      this.#wokenWhileRunning = true
      return
    }
    this.#schedule(Math.max(0, this.#startedAt + minGapMs - performance.now()))
  }

  /** Runs now, or joins the run that is under way. Rejects when the run fails. */
  runOnce(): Promise<Result> {
    if (this.#running !== undefined) return this.#running
    this.#startedAt = performance.now()
    this.#wokenWhileRunning = false
    this.#running = this.#options.run().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  /** Returns when no run is under way and none will come. Calling twice is safe. */
  async stop(): Promise<void> {
    this.#active = false
    clearTimeout(this.#timer)
    this.#timer = undefined
    await this.#running?.catch(() => undefined)
  }

  #schedule(delayMs: number): void {
    const dueAt = performance.now() + delayMs
    if (this.#timer !== undefined && this.#dueAt <= dueAt) return
    clearTimeout(this.#timer)
    this.#dueAt = dueAt
    this.#timer = setTimeout(() => void this.#tick(), delayMs)
  }

  async #tick(): Promise<void> {
    this.#timer = undefined
    const { name, log, intervalMs } = this.#options
    try {
      await this.runOnce()
      if (this.#failures > 0) log.info({ loop: name, failures: this.#failures }, `${name} works again`)
      this.#failures = 0
    } catch (error) {
      this.#failures += 1
      if (this.#failures === 1) log.error({ loop: name, err: error }, `${name} failed; it goes on trying`)
    }
    if (!this.#active) return
    const gapMs = Math.max(0, this.#startedAt + minGapMs - performance.now())
    this.#schedule(this.#wokenWhileRunning ? gapMs : intervalMs * (0.9 + 0.2 * Math.random()))
  }
}
