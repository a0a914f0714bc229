/** A provider in memory: for tests of the loops, which need instances that come and go at a word. Passes the same contract. */
import { EventEmitter } from 'node:events'
import type { Instance, LaunchRequest, Provider } from '../../src/fleet/providers/provider.ts'

export class MemoryProvider implements Provider {
  readonly endsWithNode: boolean
  /** When set, the next launches fail with it. */
  launchError: Error | undefined
  /** When set, the next launches go through and their reply is lost: they fail with it all the same. */
  lostReply: Error | undefined
  /** Waited for before each launch. */
  gate: Promise<void> = Promise.resolve()
  /** What instances said while they booted, by id. */
  readonly consoles = new Map<string, string>()
  /** What the next sweep finds. */
  leftovers: string[] = []
  /** What every instance is from now on. */
  kind: Pick<Instance, 'market' | 'instanceType' | 'zone' | 'hourlyUsd'> = {}
  /** Ids of the decisions of all launches that were asked for, repeated ones included. */
  readonly asked: string[] = []
  /** How often a launch went through. */
  launchCount = 0
  readonly #instances = new Map<string, Instance>()
  readonly #decisions = new Map<string, Instance[]>()
  readonly #changes = new EventEmitter()
  readonly #clock: () => number
  /** Whether instances that are told to end do so at once, or only when end() is called. */
  readonly #endsAtOnce: boolean
  #serial = 0

  #closed = false

  constructor(options: { clock?: () => number; endsAtOnce?: boolean; endsWithNode?: boolean } = {}) {
    this.endsWithNode = options.endsWithNode ?? true
    this.#clock = options.clock ?? Date.now
    this.#endsAtOnce = options.endsAtOnce ?? true
  }

  async launch({ pool, count, decisionId, slots }: LaunchRequest): Promise<Instance[]> {
    this.asked.push(decisionId)
    await this.gate
    if (this.#closed) throw new Error('The provider is closed')
    if (this.launchError !== undefined) throw this.launchError
    const before = this.#decisions.get(decisionId)
    if (before !== undefined && this.lostReply === undefined) return before
    if (before !== undefined) throw this.lostReply
    this.launchCount += 1
    const launched = Array.from({ length: count }, (): Instance => {
      this.#serial += 1
      const id = `memory-${this.#serial}`
      return { id, pool, slots, decisionId, launchedAt: this.#clock(), state: 'running', ...this.kind }
    })
    for (const instance of launched) this.#instances.set(instance.id, instance)
    this.#decisions.set(decisionId, launched)
    if (this.lostReply !== undefined) throw this.lostReply
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

  async explainBoot(instanceId: string): Promise<string | undefined> {
    return this.consoles.get(instanceId)
  }

  async sweepLeftovers(): Promise<string[]> {
    return this.leftovers.splice(0)
  }

  onChange(listener: () => void): () => void {
    this.#changes.on('change', listener)
    return () => {
      this.#changes.off('change', listener)
    }
  }

  async close({ stopInstances }: { readonly stopInstances: boolean }): Promise<void> {
    this.#closed = true
    if (stopInstances) this.#instances.clear()
    this.#changes.removeAllListeners()
  }
}
