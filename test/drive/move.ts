/** What a move is, and what it has at hand. */
import type { Deployment } from './deployment.ts'
import type { Http } from './http.ts'
import type { Draw, Kind } from './kinds.ts'
import type { Job, Model } from './model.ts'
import type { Random } from './random.ts'

export interface Stage {
  readonly http: Http
  readonly model: Model
  /** Those that are not left out. */
  readonly kinds: readonly Kind[]
  /** Absent with --url: nothing can be killed there. */
  readonly deployment: Deployment | undefined
  readonly maxBodyBytes: number
  /** Queues that are paused or draining now, or were a moment ago: by whom they may not be touched too. */
  readonly closedQueues: Set<string>
  /** Leases that this drive holds on results, to be acked or left to run out. */
  readonly leases: { readonly leaseId: string; readonly queue: string; readonly workIds: readonly string[] }[]
  /** Keys that were used, for requests that repeat them. */
  readonly keys: {
    readonly key: string
    readonly workId: string
    readonly queue: string
    readonly draw: Draw
    hasOther: boolean
  }[]
  /** A job that is not over yet and was accepted by the time of asking, by chance. */
  openJob(random: Random): Job | undefined
  /** When the last kill was, in ms ago; infinite without one. */
  calmForMs(): number
}

export interface Move {
  readonly name: string
  readonly group: string
  /** How often, among all moves of its stream. */
  readonly weight: number
  /** `users`: many at once. `disturbances`: one after another, with pauses. */
  readonly stream: 'users' | 'disturbances'
  /** Left out in deployments where it makes no sense. */
  readonly needs?: 'deployment' | 'small disk' | 'one machine' | 'two nodes'
  /** @throws NoAnswer when a node did not answer: the model has been told what may have come of it */
  run(stage: Stage, random: Random): Promise<void>
}
