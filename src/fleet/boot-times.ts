/** Measures how long instances take from their launch to the first sign of life of their worker: the median of the last few. */
import type { InstanceView } from './snapshot.ts'

const keptCount = 15

export class BootTimes {
  /** Instances that were counted already, as long as they are there. */
  #counted = new Set<string>()
  readonly #samples: number[] = []

  /**
   * Takes in the instances of a pool, each once; those of the last node, too, so that who takes over need not guess.
   * @returns the median in ms, or undefined when none has ever booted
   */
  observe(instances: readonly InstanceView[]): number | undefined {
    const counted = new Set<string>()
    for (const { id, launchedAt, readyAt, outside } of instances) {
      if (readyAt === undefined || outside) continue
      counted.add(id)
      // The clocks of the provider and of this node may differ by some ms.
      if (!this.#counted.has(id)) this.#samples.push(Math.max(0, Math.round(readyAt - launchedAt)))
    }
    this.#counted = counted
    this.#samples.splice(0, Math.max(0, this.#samples.length - keptCount))
    const sorted = [...this.#samples].sort((a, b) => a - b)
    return sorted[Math.floor(sorted.length / 2)]
  }
}
