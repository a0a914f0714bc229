/** What a worker is given at its start, and why it ended. */
import type { Logger } from 'pino'
import type { Settings } from '../../settings/settings.ts'

/**
 * Why a worker ended: asked by `drain()`, ordered by a node, its instance ends, it reached no node for too long, or the
 * nodes refused it.
 */
export type StopReason = 'asked' | 'ordered' | 'interrupted' | 'orphaned' | 'refused'

export interface WorkerOptions {
  readonly settings: Settings
  readonly queue: string
  /** The instance under the worker, when a provider launched one. */
  readonly instanceId?: string
  /**
   * Given: it follows the handlers of the nodes, and starts with those of this digest (digest undefined: with none).
   */
  readonly follows?: { readonly digest: string | undefined }
  /** Made up when left out. */
  readonly workerId?: string
  /** Of the metadata service of EC2; left out: this is no EC2 instance. */
  readonly metadataUrl?: string
  readonly log: Logger
}
