/**
 * Follows the handlers of the nodes:
 *
 *   current ──a heartbeat names another digest──▶ fetched ──▶ loaded in a process of its own ──▶ current
 *      ▲                                             │          └── it failed: what was current stays, and works on
 *      │                                             └── it failed: tried again after a pause
 *      └── new jobs run on them; what runs ends on those before
 *
 * From the moment that a node has others, it hands no job to a claim that names the old ones.
 */

import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import { trustedAuthorities } from '../../client/node-fetch.ts'
import { StartupError } from '../../errors.ts'
import type { HandlersBundle } from '../../handlers/bundle-handlers.ts'
import { Backoff } from '../../retry.ts'
import type { Settings } from '../../settings/settings.ts'
import { NodeClient, NodeError } from '../node/node-client.ts'
import type { HandlerDescription } from '../protocol/slot-protocol.ts'
import { type BundleFile, describeHandlers, writeBundle } from '../slots/load-bundle.ts'

export interface HandlersUpdatesOptions {
  readonly client: NodeClient
  /** Of the handlers that it starts with; undefined: only the built-in ones. */
  readonly digest: string | undefined
  readonly passEnv: readonly string[]
  /** An update is over, however it ended: jobs may be claimed again. */
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
  /** Of the handlers that cannot be loaded here, while the nodes have them. */
  #unusable: string | undefined

  constructor(options: HandlersUpdatesOptions) {
    this.#options = options
    this.#digest = options.digest
  }

  /** Whether others are being taken over, so that no job is to be claimed. */
  get isUpdating(): boolean {
    return this.#updating !== undefined && this.#unusable === undefined
  }

  /** What claims name: the latest handlers that were taken over, or that could not be; undefined: none of the nodes. */
  get claimedDigest(): string | undefined {
    return this.#unusable ?? this.#digest
  }

  /** A node says which there are. */
  heard(digest: string | undefined): void {
    if (digest === undefined || this.#stopping.signal.aborted) return
    if (this.#unusable !== undefined && digest !== this.#unusable) {
      this.#unusable = undefined
      this.#notBeforeMs = Number.NEGATIVE_INFINITY
    }
    if (digest === this.#digest || performance.now() < this.#notBeforeMs) return
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
    const { client, log } = this.#options
    try {
      const found = await client.handlers({ signal: this.#stopping.signal })
      if (found !== undefined) await this.#takeOver(checkedBundle(found))
    } catch (error) {
      if (this.#stopping.signal.aborted) return
      this.#notBeforeMs = performance.now() + pauseMs
      log.warn({ err: error }, 'the handlers of the nodes could not be fetched; trying again')
    }
  }

  async #takeOver({ code, digest }: HandlersBundle): Promise<void> {
    const { passEnv, onFile, log } = this.#options
    try {
      // Kept to the end: a slot that goes on with the version before may still look into its file.
      const file = await writeBundle({ code, digest })
      this.#files.push(file)
      const types = await describeHandlers(file.path, passEnv)
      if (this.#stopping.signal.aborted) return
      this.#digest = digest
      this.#unusable = undefined
      onFile(file.path, types)
      log.info({ digest }, 'new jobs run on other handlers')
    } catch (error) {
      if (this.#stopping.signal.aborted) return
      this.#notBeforeMs = performance.now() + pauseMs
      this.#unusable = digest
      log.warn({ err: error, digest }, 'the handlers of the nodes cannot be loaded here; those before stay')
    }
  }
}

/** The handlers that a worker runs when it has none of its own: those of the nodes. */

/**
 * Asks until a node answers, or for workerOrphanMs.
 * @returns undefined when they have none but the built-in ones, or none answers
 * @throws StartupError when they are not what the node says they are
 */
export async function fetchHandlers(settings: Settings, log: Logger): Promise<HandlersBundle | undefined> {
  const ca = trustedAuthorities(settings.caFile)
  const { nodeUrls, workerToken: token } = settings
  const client = new NodeClient({ nodeUrls, token, log, ...(ca !== undefined && { ca }) })
  const signal = AbortSignal.timeout(settings.workerOrphanMs)
  const backoff = new Backoff(100, 2000)
  try {
    while (!signal.aborted) {
      try {
        const found = await client.handlers({ rounds: 1, signal })
        return found === undefined ? undefined : checkedBundle(found)
      } catch (error) {
        // Whether it may come in is for its first heartbeat to find out.
        if (error instanceof NodeError && error.status >= 400 && error.status < 500 && error.status !== 429)
          return undefined
        if (error instanceof StartupError) throw error
        if (!signal.aborted) await backoff.wait(signal)
      }
    }
    return undefined
  } finally {
    await client.close()
  }
}

/** @throws StartupError when it is not what its digest names */
export function checkedBundle({ code, digest }: HandlersBundle): HandlersBundle {
  if (createHash('sha256').update(code).digest('hex') === digest) return { code, digest }
  throw new StartupError('The handlers that a node sent are not those of the digest beside them.')
}
