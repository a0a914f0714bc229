/**
 * Runs something again and again: stopped → waiting ⇄ running → stopped. Runs never overlap. The time between two runs
 * counts from the end of the first. A failure is logged once per outage, and so is its end.
 */
import type { Logger } from 'pino'

export interface LoopOptions<Result> {
  /** For the log. */
  readonly name: string
  readonly intervalMs: number
  readonly run: () => Promise<Result>
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>
  /** Left out: the first run comes after an interval. */
  readonly runsAtStart?: boolean
  /** Varies the interval by a tenth, so that nodes do not run in step. */
  readonly jitter?: boolean
  /** Of a failure; left out: warn. */
  readonly failureLevel?: 'warn' | 'error'
}

/** Between the starts of two runs, however often the loop is woken. */
const minGapMs = 100

export class Loop<Result = unknown> {
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

  /** Calling twice is safe. */
  start(): void {
    if (this.#active) return
    this.#active = true
    this.#schedule(this.#options.runsAtStart ? 0 : this.#options.intervalMs)
  }

  /** Runs soon. Does nothing while the loop is stopped. */
  wake(): void {
    if (!this.#active) return
    if (this.#running === undefined) this.#schedule(this.#gapMs)
    else this.#wokenWhileRunning = true
  }

  /**
   * Runs now, or joins the run under way; also while the loop is stopped.
   * @returns what the run did
   * @throws the error of the run, which is logged already
   */
  runOnce(): Promise<Result> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  /** As runOnce, but a run that began before the call does not count: it may have read what has changed since. */
  async runAfresh(): Promise<Result> {
    await this.#running?.catch(() => undefined)
    return await this.runOnce()
  }

  /** Returns when no run is under way and none will come. Calling twice is safe. */
  async stop(): Promise<void> {
    this.#active = false
    clearTimeout(this.#timer)
    this.#timer = undefined
    // A run that waits in runAfresh begins when the one before it ends.
    while (this.#running !== undefined) await this.#running.catch(() => undefined)
  }

  get #gapMs(): number {
    return Math.max(0, this.#startedAt + minGapMs - performance.now())
  }

  /** The earlier one of two schedules stays. */
  #schedule(delayMs: number): void {
    const dueAt = performance.now() + delayMs
    if (this.#timer !== undefined && this.#dueAt <= dueAt) return
    clearTimeout(this.#timer)
    this.#dueAt = dueAt
    this.#timer = setTimeout(() => void this.#tick(), delayMs).unref()
  }

  async #tick(): Promise<void> {
    this.#timer = undefined
    const { intervalMs, jitter } = this.#options
    await this.runOnce().catch(() => undefined)
    if (!this.#active) return
    const nextMs = jitter ? intervalMs * (0.9 + 0.2 * Math.random()) : intervalMs
    this.#schedule(this.#wokenWhileRunning ? this.#gapMs : nextMs)
  }

  async #run(): Promise<Result> {
    const { name, run, log, failureLevel = 'warn' } = this.#options
    this.#startedAt = performance.now()
    this.#wokenWhileRunning = false
    try {
      const result = await run()
      if (this.#failures > 0) log.info({ loop: name, failures: this.#failures }, `${name} works again`)
      this.#failures = 0
      return result
    } catch (error) {
      this.#failures += 1
      if (this.#failures === 1) log[failureLevel]({ loop: name, err: error }, `${name} failed; it goes on trying`)
      throw error
    }
  }
}
