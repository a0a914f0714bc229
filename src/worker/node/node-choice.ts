/**
 * Which node a worker talks to: the one at hand, until it fails, leaves or falls silent; then another. A worker has a
 * home node, chosen by chance so that workers spread, and goes back to it when it is well again.
 *
 *   at home ──failed, leaves, or silent while another answers──▶ away ──home is ready twice in a row──▶ at home
 *
 * A node that stands still (stopped, or its machine vanished) sends no end of a connection, and a long poll is silent
 * anyway. So while a call is open and nothing was heard for a moment, the node is asked for a sign of life; when it
 * gives none and another one does, the calls open on it are ended and go to that one. When none does, it is this
 * machine that stands still, or the network: then nothing is gained by moving.
 */
import type { Logger } from 'pino'
import type { Dispatcher, Pool } from 'undici'

export interface NodeChoiceOptions {
  readonly urls: readonly string[]
  readonly pools: readonly Pool[]
  readonly log: Logger
  /** Ask for a sign of life when nothing was heard for this long with calls open (default 500). */
  readonly quietMs?: number
  /** How long to wait for it, each of two times (default 350). */
  readonly answerMs?: number
  /** How often to look whether the home node is back, give or take half (default 2500). */
  readonly homeEveryMs?: number
}

export class NodeSilent extends Error {
  override readonly name = 'NodeSilent'
}

/** One call that is open on a node. */
export interface OpenCall {
  /** Aborts with NodeSilent when the node is left for its silence; absent when there is no other node. */
  readonly signal?: AbortSignal
  /** The node has answered, or the call is over. */
  close(heard: boolean): void
}

interface Node {
  readonly calls: Set<AbortController>
  heardAtMs: number
  timer: NodeJS.Timeout | undefined
  /** It failed at this time of performance.now(): others are tried first for a while. */
  failedAtMs: number
}

/** How long others go before a node that failed. */
const shunnedMs = 5000
const readyTimes = 2
const noCall: OpenCall = { close: () => undefined }

export class NodeChoice {
  readonly #options: NodeChoiceOptions
  readonly #quietMs: number
  readonly #answerMs: number
  readonly #homeEveryMs: number
  readonly #nodes: readonly Node[]
  readonly #home: number
  readonly #closing = new AbortController()
  #current: number
  #moveCount = 0
  #readyCount = 0
  #homeTimer: NodeJS.Timeout | undefined

  constructor(options: NodeChoiceOptions) {
    this.#options = options
    this.#quietMs = options.quietMs ?? 500
    this.#answerMs = options.answerMs ?? 350
    this.#homeEveryMs = options.homeEveryMs ?? 2500
    this.#nodes = options.urls.map(() => ({
      calls: new Set(),
      heardAtMs: 0,
      timer: undefined,
      failedAtMs: Number.NEGATIVE_INFINITY,
    }))
    this.#home = Math.floor(Math.random() * options.urls.length)
    this.#current = this.#home
  }

  /** The index of the node to call now. */
  get current(): number {
    return this.#current
  }

  /** Grows with each move. */
  get moveCount(): number {
    return this.#moveCount
  }

  /** A call begins on a node. */
  open(index: number): OpenCall {
    if (this.#nodes.length === 1) return noCall
    const node = this.#nodes[index] as Node
    const controller = new AbortController()
    if (node.calls.size === 0) node.heardAtMs = performance.now()
    node.calls.add(controller)
    this.#watch(index)
    return {
      signal: controller.signal,
      close: heard => {
        node.calls.delete(controller)
        if (heard) node.heardAtMs = performance.now()
        if (node.calls.size > 0) return
        clearTimeout(node.timer)
        node.timer = undefined
      },
    }
  }

  /** The node cannot be reached, or cannot do it now. Calls that fail at the same time move on together. */
  failed(index: number, reason: string): void {
    ;(this.#nodes[index] as Node).failedAtMs = performance.now()
    this.#move(index, reason)
  }

  /** The node said that it closes its connections: it is about to stop. */
  leaving(index: number): void {
    this.failed(index, 'the node is leaving')
  }

  close(): void {
    this.#closing.abort()
    clearTimeout(this.#homeTimer)
    for (const node of this.#nodes) clearTimeout(node.timer)
  }

  #move(from: number, reason: string, to: number = this.#next(from)): void {
    if (this.#current !== from || to === from) return
    this.#current = to
    this.#moveCount += 1
    const { urls, log } = this.#options
    log.info({ from: urls[from], to: urls[to], reason }, 'moving on to another node')
    this.#planReturn()
  }

  /** The next one in the round that has not failed of late, else simply the next. */
  #next(from: number): number {
    const count = this.#nodes.length
    const others = Array.from({ length: count - 1 }, (_, at) => (from + 1 + at) % count)
    const isWell = (index: number): boolean => performance.now() - (this.#nodes[index] as Node).failedAtMs > shunnedMs
    return others.find(isWell) ?? others[0] ?? from
  }

  /** Looks after the node as long as calls are open on it. */
  #watch(index: number): void {
    const node = this.#nodes[index] as Node
    if (node.timer !== undefined || this.#closing.signal.aborted) return
    const waitMs = Math.max(1, node.heardAtMs + this.#quietMs - performance.now())
    node.timer = setTimeout(() => void this.#lookAfter(index), waitMs)
    node.timer.unref()
  }

  async #lookAfter(index: number): Promise<void> {
    const node = this.#nodes[index] as Node
    const heardAtMs = node.heardAtMs
    if (performance.now() - heardAtMs >= this.#quietMs) {
      const isAlive = await this.#answers(index, '/health/live')
      if (isAlive) node.heardAtMs = performance.now()
      else if (node.heardAtMs === heardAtMs && node.calls.size > 0) await this.#leave(index)
    }
    node.timer = undefined
    if (node.calls.size > 0) this.#watch(index)
  }

  /**
   * Its calls go to a node that answers now, if there is one. It is asked once more meanwhile: when it was this process
   * that stood still, both answer.
   */
  async #leave(index: number): Promise<void> {
    const node = this.#nodes[index] as Node
    const heardAtMs = node.heardAtMs
    const others = this.#nodes.map((_, other) => other).filter(other => other !== index)
    const [isAlive, ...answers] = await Promise.all(
      [index, ...others].map(asked => this.#answers(asked, '/health/live')),
    )
    const to = others.find((_, at) => answers[at])
    if (isAlive || to === undefined || node.heardAtMs !== heardAtMs || this.#closing.signal.aborted) return
    node.failedAtMs = performance.now()
    this.#move(index, 'the node is silent', to)
    for (const call of [...node.calls]) call.abort(new NodeSilent(`${this.#options.urls[index]} is silent`))
  }

  #planReturn(): void {
    if (this.#homeTimer !== undefined || this.#current === this.#home || this.#closing.signal.aborted) return
    const waitMs = this.#homeEveryMs * (0.5 + Math.random())
    this.#homeTimer = setTimeout(() => void this.#lookHome(), waitMs)
    this.#homeTimer.unref()
  }

  /** Ready twice in a row: a node that is just starting, or about to stop, is not chosen. */
  async #lookHome(): Promise<void> {
    const home = this.#home
    this.#readyCount = (await this.#answers(home, '/health/ready')) ? this.#readyCount + 1 : 0
    this.#homeTimer = undefined
    if (this.#readyCount >= readyTimes && !this.#closing.signal.aborted) {
      this.#readyCount = 0
      this.#move(this.#current, 'the node of this worker is back', home)
    }
    this.#planReturn()
  }

  /** Whether the node answers in time; asked for more than a sign of life, with 200. */
  async #answers(index: number, path: string): Promise<boolean> {
    const basePath = new URL(this.#options.urls[index] as string).pathname.replace(/\/$/, '')
    const limit = AbortSignal.any([AbortSignal.timeout(this.#answerMs), this.#closing.signal])
    try {
      const pool = this.#options.pools[index] as Pool
      const response: Dispatcher.ResponseData = await pool.request({
        method: 'GET',
        path: basePath + path,
        signal: limit,
      })
      await response.body.dump()
      return path === '/health/live' || response.statusCode === 200
    } catch {
      return false
    }
  }
}
