/**
 * Looks for local workers that a signal has stopped: their handlers can send it, as the same user.
 *
 *   running ──stopped──▶ made to go on (SIGCONT) ──again and again──▶ killed, and replaced like any that ended
 *
 * The slots of a worker do the first of it by themselves (worker/child/slot-watchdog.ts), unless they were stopped as well.
 */
import { readFileSync } from 'node:fs'
import type { FastifyBaseLogger } from 'fastify'
import { isStopped, signalProcess } from '../../../process-identity.ts'

export interface WatchedProcess {
  readonly id: string
  readonly pid: number
}

export interface StoppedWatchOptions<Watched extends WatchedProcess> {
  readonly running: () => readonly Watched[]
  readonly kill: (watched: Watched) => void
  readonly log: FastifyBaseLogger
}

const lookEveryMs = 1000
/** So often within a minute, and it is somebody's intent. */
const mostTimes = 5
const rememberMs = 60_000

export class StoppedWatch<Watched extends WatchedProcess> {
  readonly #options: StoppedWatchOptions<Watched>
  readonly #timer: NodeJS.Timeout
  #seen: readonly { readonly id: string; readonly atMs: number }[] = []

  constructor(options: StoppedWatchOptions<Watched>) {
    this.#options = options
    this.#timer = setInterval(() => this.#look(), lookEveryMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const nowMs = performance.now()
    this.#seen = this.#seen.filter(({ atMs }) => nowMs - atMs < rememberMs)
    for (const watched of this.#options.running().filter(({ pid }) => isStopped(pid))) {
      this.#seen = [...this.#seen, { id: watched.id, atMs: nowMs }]
      this.#mend(watched, this.#seen.filter(({ id }) => id === watched.id).length)
    }
  }

  #mend(watched: Watched, times: number): void {
    const { kill, log } = this.#options
    const details = { instanceId: watched.id, pid: watched.pid, times }
    try {
      if (times < mostTimes) {
        signalProcess(watched.pid, 'SIGCONT')
        log.warn(details, 'a worker was stopped by a signal, a handler may have sent it: it goes on')
      } else {
        // A slot that is stopped as well does not see that its worker is gone.
        for (const child of childrenOf(watched.pid)) signalProcess(-child, 'SIGKILL')
        kill(watched)
        log.warn(details, 'a worker was stopped by a signal again and again: it is killed')
      }
    } catch (error) {
      log.error({ ...details, err: error }, 'a worker is stopped by a signal, and cannot be reached')
    }
  }
}

/** Those that its main thread started: its slots, each the leader of a group. */
function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim().split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}
