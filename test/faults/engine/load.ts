/** The clients of one host, as seen from here: orders out, facts in. */
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import type { Fact } from './facts.ts'
import type { HostName, Network } from './network.ts'
import { startTask } from './task-process.ts'

export interface LoadPlan {
  /** Begins the names of its clients and, with them, its payloads and Idempotency-Keys. */
  readonly name: string
  readonly nodeUrls: readonly string[]
  readonly headers: Readonly<Record<string, string>>
  readonly putters: number
  /** Of all putters together. */
  readonly jobsPerSecond: number
  readonly plainPullers: number
  readonly leasePullers: number
  readonly leaseMs: number
}

export type LoadOrder =
  | ({ readonly kind: 'begin' } & LoadPlan)
  | { readonly kind: 'pull' | 'put' | 'stopPutting' | 'end' }

export type LoadReport =
  | { readonly kind: 'facts'; readonly facts: readonly Fact[] }
  | { readonly kind: 'done'; readonly id: number }

/** The longest a PUT may take before it is given up, and some more. */
const doneWithinMs = 30_000

export class Load {
  readonly host: HostName
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, () => void>()
  #lastId = 0

  constructor(network: Network, runPath: string, host: HostName, onFacts: (facts: readonly Fact[]) => void) {
    this.host = host
    this.#child = startTask({ file: 'load-process', network, host, folder: join(runPath, 'hosts', host) })
    this.#child.on('message', (report: LoadReport) => {
      if (report.kind === 'facts') onFacts(report.facts)
      else this.#waiting.get(report.id)?.()
    })
  }

  /** Makes the clients; they do nothing yet. */
  async begin(plan: LoadPlan): Promise<void> {
    await this.#order({ kind: 'begin', ...plan })
  }

  /** The pullers collect from now on. */
  async pull(): Promise<void> {
    await this.#order({ kind: 'pull' })
  }

  /** The putters submit from now on, each from its first node. */
  async put(): Promise<void> {
    await this.#order({ kind: 'put' })
  }

  /** Resolves when every PUT was answered or given up, and all facts are here. */
  async stopPutting(): Promise<void> {
    await this.#order({ kind: 'stopPutting' })
  }

  /** Ends all clients and the process. */
  async end(): Promise<void> {
    await this.#order({ kind: 'end' }).catch(() => undefined)
    this.#child.kill('SIGKILL')
  }

  #order(order: LoadOrder): Promise<void> {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      const finish = (error?: Error): void => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        this.#child.off('exit', onExit)
        if (error === undefined) resolve()
        else reject(error)
      }
      const fail = (why: string): void => finish(new Error(`clients on ${this.host}: ${order.kind}: ${why}`))
      const onExit = (): void => fail('their process ended')
      const timer = setTimeout(() => fail(`not done within ${doneWithinMs} ms`), doneWithinMs)
      this.#child.on('exit', onExit)
      this.#waiting.set(id, () => finish())
      this.#child.send({ ...order, id }, error => error !== null && fail(error.message))
    })
  }
}
