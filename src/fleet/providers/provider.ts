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
  /** How it was bought; absent where nothing is bought. */
  readonly market?: Market
  readonly instanceType?: string
  readonly zone?: string
  /** Where its calls come from, once its provider shows it; absent where a provider has nothing to tell. */
  readonly addresses?: readonly string[]
  /** Whose it is. */
  readonly accountId?: string
  /** What it costs an hour; absent when that is not known (yet). */
  readonly hourlyUsd?: number
}

export type Market = 'spot' | 'on-demand'

export interface LaunchRequest {
  readonly pool: string
  readonly count: number
  /** The same id launches once, however often it is sent. */
  readonly decisionId: string
  readonly slots: number
}

/** Why a part of a launch came to nothing, and where. */
export interface LaunchFailure {
  /** A word to search for, like InsufficientInstanceCapacity. */
  readonly code: string
  readonly message: string
  /** The provider wants fewer requests: the same launch may succeed soon. */
  readonly throttled: boolean
  /** There is no room for it there now. */
  readonly capacity: boolean
  readonly market?: Market
  readonly instanceType?: string
  readonly subnetId?: string
}

/** Not a single instance could be launched. */
export class LaunchError extends Error {
  readonly failures: readonly LaunchFailure[]

  /** @param what completes to a explanation with the failures */
  constructor(what: string, failures: readonly LaunchFailure[], options?: ErrorOptions) {
    super(failures.length === 0 ? what : `${what}: ${summarize(failures)}`, options)
    this.name = 'LaunchError'
    this.failures = failures
  }
}

/** One line: each code once, with how often it came and one message. */
function summarize(failures: readonly LaunchFailure[]): string {
  return [...new Set(failures.map(({ code }) => code))]
    .map(desired => failures.filter(({ code }) => code === desired))
    .map(those => `${those[0]?.code} (${those.length}×: ${those[0]?.message})`)
    .join('; ')
}

export interface Provider {
  /** Its instances run on the node's own machine and end when the node stops. */
  readonly endsWithNode: boolean

  /**
   * Launches up to `count` instances; fewer when there is no room for more.
   * Idempotent by decisionId: a repeated request launches nothing and returns what the first one launched.
   * @returns the instances of this decision; list() shows them from now on, until they are gone
   * @throws LaunchError when not a single one could be launched
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

  /** What an instance said while it booted: the end of it, at most 4 kB. Undefined when it said nothing, or is forgotten. */
  explainBoot(instanceId: string): Promise<string | undefined>

  /**
   * Removes what instances left behind and what costs money, once it has lain there for a grace period.
   * @param now in ms since the epoch
   * @returns the ids of what was removed
   */
  sweepLeftovers(now: number): Promise<string[]>

  /** Calls back soon after an instance ended, if it hears of it. A hint that nobody relies on. The returned function ends that. */
  onChange(listener: () => void): () => void

  /**
   * Lets go of everything. Calling twice is safe; nothing is launched after it.
   * @param options.stopInstances end all instances, and return when they are gone
   */
  close(options: { readonly stopInstances: boolean }): Promise<void>

  /** For a node that exits at once: kills what ends with it before this returns. Absent where nothing does. */
  endNow?(): void
}
