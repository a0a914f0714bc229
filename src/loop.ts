/**
 * The shape of everything here that runs again and again: `start`, `runOnce`, `stop` (waits). Runs never overlap,
 * a failed run is logged once per outage and the next one comes at its time.
 */
import type { Logger } from 'pino'

export class Loop {
  readonly #name: string
  readonly #run: () => Promise<void>
  readonly #intervalMs: number
  readonly #log: Logger
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #stopped = true
  #failing = false

  constructor(name: string, intervalMs: number, run: () => Promise<void>, log: Logger) {
    this.#name = name
    this.#intervalMs = intervalMs
    this.#run = run
    this.#log = log
  }

  start(): void {
    if (!this.#stopped) return
    this.#stopped = false
    this.#schedule()
  }

  /** Runs now, or joins the run under way. Never rejects. */
  runOnce(): Promise<void> {
    this.#running ??= this.#guarded().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  /**
   * Runs once from the beginning: a run that is under way may have looked before what has just happened. Never rejects.
   */
  async runAnew(): Promise<void> {
    if (this.#running !== undefined) await this.#running
    await this.runOnce()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    // One that waited in runAnew begins when the other one ends.
    while (this.#running !== undefined) await this.#running
  }

  #schedule(): void {
    if (this.#stopped) return
    this.#timer = setTimeout(() => void this.runOnce().then(() => this.#schedule()), this.#intervalMs)
    this.#timer.unref()
  }

  async #guarded(): Promise<void> {
    try {
      await this.#run()
      if (this.#failing) this.#log.info({ loop: this.#name }, 'works again')
      this.#failing = false
    } catch (error) {
      if (!this.#failing) this.#log.warn({ loop: this.#name, err: error }, 'failed; will be tried again')
      this.#failing = true
    }
  }
}
