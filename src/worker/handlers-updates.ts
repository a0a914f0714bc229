/**
 * Follows the handlers of the nodes:
 *
 *   current ──a heartbeat names another digest──▶ fetched ──▶ loaded in a process of its own ──▶ current
 *      ▲                                             └── it failed: what was current stays ──▶ (a pause) current
 *      └── new jobs run on them; what runs ends on those before
 */
import type { Logger } from 'pino'
import { describeHandlers } from './describe-handlers.ts'
import { checkedBundle } from './fetch-handlers.ts'
import { type BundleFile, writeBundle } from './load-bundle.ts'
import type { NodeClient } from './node-client.ts'
import type { HandlerDescription } from './slot-protocol.ts'

export interface HandlersUpdatesOptions {
  readonly client: NodeClient
  /** Of the handlers that it starts with; undefined: the built-in ones alone. */
  readonly digest: string | undefined
  readonly passEnv: readonly string[]
  /** Jobs may be claimed again: others were taken over, or those before stay. */
  readonly onSettled: () => void
  /** There are others, which can be loaded. */
  readonly onFile: (path: string, types: readonly HandlerDescription[]) => void
  readonly log: Logger
}

/** After a version that could not be had, or not be loaded. */
const pauseMs = 5000

export class HandlersUpdates {
  readonly #options: HandlersUpdatesOptions
  readonly #files: BundleFile[] = []
  readonly #stopping = new AbortController()
  #digest: string | undefined
  #updating: Promise<void> | undefined
  #notBeforeMs = Number.NEGATIVE_INFINITY
  #hasFailed = false

  constructor(options: HandlersUpdatesOptions) {
    this.#options = options
    this.#digest = options.digest
  }

  /** Whether others are being taken over; not when they could not be had before: then work goes on meanwhile. */
  get isBetween(): boolean {
    return this.#updating !== undefined && !this.#hasFailed
  }

  /** What claims say to run; undefined: none of the nodes, or those before, since others could not be had. */
  get claimedDigest(): string | undefined {
    return this.#hasFailed ? undefined : this.#digest
  }

  /** A node says which there are. */
  heard(digest: string | undefined): void {
    if (digest === undefined || digest === this.#digest || this.#stopping.signal.aborted) return
    if (performance.now() < this.#notBeforeMs) return
    this.#updating ??= this.#update().finally(() => {
      this.#updating = undefined
      this.#options.onSettled()
    })
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#updating
    await Promise.all(this.#files.map(file => file.remove()))
  }

  async #update(): Promise<void> {
    const { client, passEnv, onFile, log } = this.#options
    try {
      const found = await client.handlers({ signal: this.#stopping.signal })
      if (found === undefined) return
      const { code, digest } = checkedBundle(found)
      // Kept to the end: a slot that goes on with the version before may still look into its file.
      const file = await writeBundle({ code, digest })
      this.#files.push(file)
      const types = await describeHandlers(file.path, passEnv)
      if (this.#stopping.signal.aborted) return
      this.#digest = digest
      this.#hasFailed = false
      onFile(file.path, types)
      log.info({ digest }, 'new jobs run on other handlers')
    } catch (error) {
      if (this.#stopping.signal.aborted) return
      this.#notBeforeMs = performance.now() + pauseMs
      this.#hasFailed = true
      log.warn({ err: error }, 'the handlers of the nodes could not be taken over; those before stay')
    }
  }
}
