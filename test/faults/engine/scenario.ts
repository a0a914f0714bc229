/** What a scenario is, and what it finds on stage. */
import type { Verdict } from './checker.ts'
import type { Deployment } from './deployment.ts'
import type { Host } from './host.ts'

export interface Scenario {
  /** Kebab-case; unique. */
  readonly name: string
  /** What happens, in one sentence. */
  readonly what: string
  /** Part of `--short`. */
  readonly short?: true
  /** Needs links that can be cut: skipped, and said so, where there are none. */
  readonly needsLinks?: true
  /** From the injection until it is healed; left out: it heals by itself. */
  readonly downMs?: number
  /** A client on the host `far` submits and collects too. */
  readonly withFarClient?: true
  /** The client on `far` is cut off: that it is not served is no fault. */
  readonly cutsOffFarClient?: true
  /**
   * Does the harm, and calls `stage.mark()` in the moment from which times are counted.
   * @returns what heals it after `downMs`; whatever it leaves broken is healed before the next scenario
   */
  inject(stage: Stage): Promise<Heal | undefined>
  /** What must hold beyond "nothing lost, doubled or wrong": sentences that say what does not. */
  check?(verdict: Verdict): string[]
}

export type Heal = () => Promise<void>

/** Who plays which part when the harm is done. */
export interface Stage {
  readonly deployment: Deployment
  /** Its Redis is primary. */
  readonly primary: Host
  /** Another host with a node; its Redis is a replica. */
  readonly replica: Host
  /** The third copy: no node, unless it is primary just now. */
  readonly witness: Host
  /** A host with a node: that of `replica`. */
  readonly node: Host
  readonly worker: Host
  /** All hosts with a copy. */
  readonly copies: readonly Host[]
  /** All hosts. */
  readonly hosts: readonly Host[]
  /** Now: called twice, the first one counts. */
  mark(): void
  /** For steps within a fault, not for waiting in hope. */
  pause(ms: number): Promise<void>
}
