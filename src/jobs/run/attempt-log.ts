/**
 * Failed attempts in the log of the node, so that nobody has to poll for them. Bounded: after the first ones of a
 * window the rest are counted, and told as one line when the window is over.
 */
import type { Logger } from 'pino'

export interface FailedAttempt {
  readonly queue: string
  readonly type: string
  readonly workId: string
  /** Attempts spent, this one included, of how many. */
  readonly attempt: number
  readonly attempts: number
  readonly code: string
  readonly message: string
}

const windowMs = 10_000
const linesPerWindow = 20
const messageCharacters = 300

export class AttemptLog {
  readonly #log: Logger
  #shown = 0
  #hidden = 0
  #timer: NodeJS.Timeout | undefined

  constructor(log: Logger) {
    this.#log = log
  }

  /** @param isDead whether no further attempt follows */
  failed({ message, ...rest }: FailedAttempt, isDead: boolean): void {
    this.#timer ??= setTimeout(() => this.close(), windowMs).unref()
    if (this.#shown >= linesPerWindow) {
      this.#hidden += 1
      return
    }
    this.#shown += 1
    const said = { ...rest, message: message.slice(0, messageCharacters) }
    if (isDead) this.#log.error(said, 'a job is dead: no further attempt')
    else this.#log.warn(said, 'an attempt failed; it will be tried again')
  }

  /** Ends the window: tells how many were not shown. */
  close(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#hidden > 0)
      this.#log.warn({ count: this.#hidden }, 'more attempts failed; "GET /jobs?state=dead" lists what is dead')
    this.#shown = 0
    this.#hidden = 0
  }
}
