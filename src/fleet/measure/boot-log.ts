/**
 * Watches the instances of one pool come up: tells of each once when it is ready and once when it has claimed its first job,
 * and knows the median of each stage. Kept in memory by the node that scales; one that takes over tells only of what comes.
 */

import type { Instance } from '../providers/provider.ts'
import type { WorkerRecord } from '../workers/registry.ts'
import { type BootTimeline, bootTimeline, describeBoot, type StageTimes, seconds, stageTimes } from './boot-stages.ts'

/** For the journal. */
export interface BootNews {
  readonly kind: 'boot'
  readonly instanceId: string
  readonly reached: 'ready' | 'first-claim'
  readonly reason: 'booted'
  readonly at: BootTimeline
  readonly stages: StageTimes
}

export interface BootMedians extends Partial<StageTimes> {
  /** Of how many instances, at most the newest 15. */
  readonly sampleCount: number
}

const keptCount = 15
/** More than these are counted, not named. */
const namedCount = 5

export class BootLog {
  readonly #reached = new Map<string, BootNews['reached']>()
  readonly #samples = new Map<keyof StageTimes, number[]>()
  #isTakingOver = true

  /** What came up before now is somebody else's to tell. */
  takeOver(): void {
    this.#isTakingOver = true
  }

  /** @param instances of this pool */
  observe(instances: readonly Instance[], workers: readonly WorkerRecord[]): BootNews[] {
    const byInstance = new Map(workers.map(worker => [worker.instanceId, worker]))
    const news: BootNews[] = []
    const present = new Set<string>()
    for (const { id, launchedAt } of instances) {
      present.add(id)
      const worker = byInstance.get(id)
      if (worker === undefined || this.#reached.get(id) === 'first-claim') continue
      const at = bootTimeline(launchedAt, worker)
      const stages = stageTimes(at)
      const add = (reached: BootNews['reached']): void => {
        this.#reached.set(id, reached)
        news.push({ kind: 'boot', instanceId: id, reached, reason: 'booted', at, stages })
      }
      if (!this.#reached.has(id)) {
        const { firstClaimMs: _, ...others } = stages
        this.#sample(others)
        add('ready')
      }
      if (at.firstClaimAt === undefined) continue
      this.#sample(stages.firstClaimMs === undefined ? {} : { firstClaimMs: stages.firstClaimMs })
      add('first-claim')
    }
    for (const id of this.#reached.keys()) if (!present.has(id)) this.#reached.delete(id)
    const wasTakingOver = this.#isTakingOver
    this.#isTakingOver = false
    return wasTakingOver ? [] : news
  }

  /** Undefined until an instance has come up. */
  get medians(): BootMedians | undefined {
    const sampleCount = this.#samples.get('readyMs')?.length
    if (sampleCount === undefined) return undefined
    const medians = [...this.#samples].map(([stage, samples]) => [stage, median(samples)])
    return { sampleCount, ...Object.fromEntries(medians) } as BootMedians
  }

  #sample(times: Partial<StageTimes>): void {
    for (const [stage, ms] of Object.entries(times) as [keyof StageTimes, number][]) {
      const samples = this.#samples.get(stage) ?? []
      samples.push(ms)
      this.#samples.set(stage, samples.slice(-keptCount))
    }
  }
}

const median = (samples: readonly number[]): number =>
  [...samples].sort((a, b) => a - b)[Math.floor(samples.length / 2)] as number

/** What the journal says of it, in a explanation. */
export function tellBoots(news: readonly BootNews[]): string {
  const parts = news
    .slice(0, namedCount)
    .map(({ instanceId, reached, stages }) =>
      reached === 'ready'
        ? `${instanceId} is ready ${describeBoot(stages)} after its launch`
        : `${instanceId} claimed its first job ${seconds(stages.firstClaimMs ?? 0)} after it was ready`,
    )
  const more = news.length > namedCount ? `; and ${news.length - namedCount} more` : ''
  return `${parts.join('; ')}${more}.`
}
