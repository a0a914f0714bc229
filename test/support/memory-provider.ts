/** A provider in memory: for tests of the loops, which need instances that come and go at a word. Passes the same contract. */
import { EventEmitter } from 'node:events'
import type { Instance, LaunchRequest, Provider } from '../../src/fleet/providers/provider.ts'

export class MemoryProvider implements Provider {
  readonly endsWithNode = true
  /** When set, the next launches fail with it. */
  launchError: Error | undefined
  /** How often a launch went through. */
  launchCount = 0
  readonly #instances = new Map<string, Instance>()
  readonly #decisions = new Map<string, Instance[]>()
  readonly #changes = new EventEmitter()
  readonly #clock: () => number
  /** Whether instances that are told to end do so at once, or only when end() is called. */
  readonly #endsAtOnce: boolean
  #serial = 0

  constructor(options: { clock?: () => number; endsAtOnce?: boolean } = {}) {
    this.#clock = options.clock ?? Date.now
    this.#endsAtOnce = options.endsAtOnce ?? true
  }

  async launch({ pool, count, decisionId, slots }: LaunchRequest): Promise<Instance[]> {
    if (this.launchError !== undefined) throw this.launchError
    const before = this.#decisions.get(decisionId)
    if (before !== undefined) return before
    this.launchCount += 1
    const launched = Array.from({ length: count }, (): Instance => {
      this.#serial += 1
      return { id: `memory-${this.#serial}`, pool, slots, decisionId, launchedAt: this.#clock(), state: 'running' }
    })
    for (const instance of launched) this.#instances.set(instance.id, instance)
    this.#decisions.set(decisionId, launched)
    return launched
  }

  async list(): Promise<Instance[]> {
    return [...this.#instances.values()]
  }

  async terminate(ids: readonly string[], { force = false } = {}): Promise<void> {
    for (const id of ids) {
      const instance = this.#instances.get(id)
      if (instance === undefined) continue
      this.#instances.set(id, { ...instance, state: 'terminating' })
      if (force || this.#endsAtOnce) this.end(id)
    }
  }

  /** The instance is gone, by itself or after it was told to end. */
  end(id: string): void {
    if (this.#instances.delete(id)) this.#changes.emit('change')
  }

  manages(instanceId: string): boolean {
    return instanceId.startsWith('memory-')
  }

  onChange(listener: () => void): () => void {
    this.#changes.on('change', listener)
    return () => {
      this.#changes.off('change', listener)
    }
  }

  async close({ stopInstances }: { readonly stopInstances: boolean }): Promise<void> {
    if (stopInstances) this.#instances.clear()
    this.#changes.removeAllListeners()
  }
}
