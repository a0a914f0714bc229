/**
 * What can launch, list and terminate instances. Every implementation passes test/contracts/provider-contract.ts.
 * All methods may be called at the same time and again; none blocks for longer than its own bounded time.
 */

export interface Instance {
  readonly id: string
  /** The queue that it serves. */
  readonly pool: string
  readonly slots: number
  /** The decision that launched it. */
  readonly decisionId: string
  /** In ms since the epoch. */
  readonly launchedAt: number
  /** running covers booting: only its worker knows when it is ready. terminating: told to end, not gone yet. */
  readonly state: 'running' | 'terminating'
}

export interface LaunchRequest {
  readonly pool: string
  readonly count: number
  /** The same id launches once, however often it is sent. */
  readonly decisionId: string
  readonly slots: number
}

export interface Provider {
  /** Its instances run on the node's own machine and end when the node stops. */
  readonly endsWithNode: boolean

  /**
   * Launches up to `count` instances; fewer when there is no room for more.
   * Idempotent by decisionId: a repeated request launches nothing and returns what the first one launched.
   * @returns the instances of this decision; list() shows them from now on, until they are gone
   * @throws when not a single one could be launched
   */
  launch(request: LaunchRequest): Promise<Instance[]>

  /** All instances that are not gone, of all pools. One that has ended by itself is absent at once. */
  list(): Promise<Instance[]>

  /**
   * Tells instances to end: their workers hand back or finish what they hold, and are killed after a grace. Returns when
   * that was passed on, not when they are gone. An id that is unknown, gone or already ending is fine.
   * @param options.force no grace
   */
  terminate(ids: readonly string[], options?: { readonly force?: boolean }): Promise<void>

  /** Whether an instance with this id would be in list() if it existed: ids that others gave are not. */
  manages(instanceId: string): boolean

  /** Calls back soon after an instance ended. A hint that nobody relies on. The returned function ends that. */
  onChange(listener: () => void): () => void

  /**
   * Lets go of everything. Calling twice is safe; nothing is launched after it.
   * @param options.stopInstances end all instances, and return when they are gone
   */
  close(options: { readonly stopInstances: boolean }): Promise<void>
}
