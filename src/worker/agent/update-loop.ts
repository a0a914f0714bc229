/**
 * Progress and log lines of running jobs, gathered and sent some four times a second, if there are any.
 * Lines of one job arrive in order: while some are on their way, later ones and the completion wait.
 */
import type { HeartbeatRequest } from '../../contract/worker-protocol.ts'
import { Backoff } from '../../retry.ts'
import type { Attempt } from '../attempts/attempt.ts'
import type { HeartbeatLoop } from './heartbeat-loop.ts'

const everyMs = 250
/** Log text of one call. */
const callBytes = 256 * 1024

export class UpdateLoop {
  readonly #heartbeat: HeartbeatLoop
  readonly #waiting = new Set<Attempt>()
  readonly #stopping = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #sending: Promise<void> | undefined

  constructor(heartbeat: HeartbeatLoop) {
    this.#heartbeat = heartbeat
  }

  /** The attempt has something new to tell. */
  note(attempt: Attempt): void {
    this.#waiting.add(attempt)
    this.#arm(everyMs)
  }

  /**
   * For an attempt that is over: resolves when the lines on their way have arrived or come back, and no more is left
   * than fits into a completion.
   */
  async settle(attempt: Attempt): Promise<void> {
    const backoff = new Backoff(100, 2000)
    await attempt.logsInFlight
    while (attempt.logSize > callBytes && !this.#stopping.signal.aborted) {
      const sizeBefore = attempt.logSize
      await this.#send([attempt])
      if (attempt.logSize === sizeBefore) await backoff.wait(this.#stopping.signal)
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    clearTimeout(this.#timer)
    await this.#sending
  }

  #arm(waitMs: number): void {
    if (this.#timer !== undefined || this.#stopping.signal.aborted) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#flush()
    }, waitMs)
  }

  #flush(): void {
    if (this.#waiting.size === 0) return
    if (this.#sending !== undefined) {
      this.#arm(everyMs)
      return
    }
    // Lines of an attempt that is over go with its completion, or `settle` sends them.
    const attempts = [...this.#waiting].filter(({ isOver }) => !isOver)
    this.#waiting.clear()
    if (attempts.length === 0) return
    this.#sending = this.#send(attempts).finally(() => {
      this.#sending = undefined
    })
  }

  /**
   * Sends what these attempts have to tell, up to the size of one call; the rest, and what failed, waits for the next.
   */
  async #send(attempts: readonly Attempt[]): Promise<void> {
    const progress: NonNullable<HeartbeatRequest['progress']> = []
    const logs = new Map<Attempt, string[]>()
    let room = callBytes
    for (const attempt of attempts) {
      if (attempt.progress !== undefined) progress.push({ ...attempt.ref, ...attempt.progress })
      attempt.progress = undefined
      if (!attempt.hasLogs) continue
      if (room > 0) {
        const lines = attempt.takeLogs(room)
        logs.set(attempt, lines)
        for (const line of lines) room -= line.length
      }
      if (attempt.hasLogs && !attempt.isOver) this.note(attempt)
    }
    const sent = this.#beat(progress, logs)
    for (const attempt of logs.keys()) attempt.logsInFlight = sent
    await sent
    for (const attempt of logs.keys()) attempt.logsInFlight = undefined
  }

  async #beat(
    progress: NonNullable<HeartbeatRequest['progress']>,
    logs: ReadonlyMap<Attempt, string[]>,
  ): Promise<void> {
    const extra = {
      waitMs: 0,
      ...(progress.length === 0 ? {} : { progress }),
      ...(logs.size === 0 ? {} : { logs: [...logs].map(([{ ref }, lines]) => ({ ...ref, lines })) }),
    }
    try {
      await this.#heartbeat.beat(extra, { signal: this.#stopping.signal, rounds: 1 })
    } catch {
      // Progress is soon out of date anyway; lines are kept for later, or go with the completion.
      for (const [attempt, lines] of logs) {
        attempt.requeueLogs(lines)
        if (!attempt.isOver) this.note(attempt)
      }
    }
  }
}
