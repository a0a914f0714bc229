/** A client that collects by long poll, one after the other: plainly, or under a lease that it acks. */
import { setTimeout as delay } from 'node:timers/promises'
import { nowMs } from './clock.ts'
import type { Fact } from './facts.ts'
import { failure, type HttpCaller, isLeaving } from './http-call.ts'
import { NodeChoice } from './node-choice.ts'

export interface PullerOptions {
  readonly name: string
  readonly nodeUrls: readonly string[]
  readonly first: number
  readonly headers: Readonly<Record<string, string>>
  /** Left out: plain pulls. */
  readonly leaseMs?: number
  readonly caller: HttpCaller
  readonly note: (fact: Fact) => void
}

const top = 50
const waitMs = 1000
const answerWithinMs = 2500
const pauseMs = 100

interface Entry {
  readonly 'Work ID': string
  readonly Value?: unknown
}

export class Puller {
  readonly #options: PullerOptions
  readonly #choice: NodeChoice
  readonly #stopping = new AbortController()
  #running: Promise<void> | undefined

  constructor(options: PullerOptions) {
    this.#options = options
    this.#choice = new NodeChoice(options.nodeUrls, options.first)
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** After the call under way. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      if (!(await this.#pull())) await delay(pauseMs * (0.5 + Math.random()))
    }
  }

  /** @returns false when the call came to nothing */
  async #pull(): Promise<boolean> {
    const { name, headers, leaseMs, caller, note } = this.#options
    const node = this.#choice.url
    const askedMs = nowMs()
    const lease = leaseMs === undefined ? '' : `&leaseMs=${leaseMs}`
    const url = `${node}/pullCompleted?top=${top}&waitMs=${waitMs}&failed=include${lease}`
    const result = await caller.call({ method: 'POST', url, headers, withinMs: waitMs + answerWithinMs })
    const atMs = nowMs()
    if (isLeaving(result)) this.#choice.moveOnFrom(node)
    if (!result.ok) {
      note(failure('pull', name, node, atMs, result))
      this.#choice.moveOnFrom(node)
      return false
    }
    const entries = result.json as Entry[]
    if (entries.length === 0) return true
    const results = entries.map(entry => [entry['Work ID'], entry.Value] as const)
    const leaseId = result.headers['muster-lease-id'] as string | undefined
    if (leaseMs === undefined || leaseId === undefined) {
      note({ kind: 'handedOut', client: name, askedMs, atMs, results })
      return true
    }
    note({ kind: 'handedOut', client: name, askedMs, atMs, leaseId, leaseMs, results })
    await this.#ack(
      leaseId,
      results.map(([workId]) => workId),
      askedMs + leaseMs,
    )
    return true
  }

  /** Until it is answered, or the lease is over. */
  async #ack(leaseId: string, workIds: readonly string[], leaseEndsMs: number): Promise<void> {
    const { name, headers, caller, note } = this.#options
    while (nowMs() < leaseEndsMs) {
      const node = this.#choice.url
      const result = await caller.call({
        method: 'POST',
        url: `${node}/pullCompleted/ack`,
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify({ leaseId, workIds }),
        withinMs: answerWithinMs,
      })
      const atMs = nowMs()
      if (isLeaving(result)) this.#choice.moveOnFrom(node)
      if (result.ok) {
        const notHeld = new Set((result.json as { notHeld: string[] }).notHeld)
        const acked = workIds.filter(workId => !notHeld.has(workId))
        if (acked.length > 0) note({ kind: 'acked', client: name, atMs, leaseId, workIds: acked })
        return
      }
      note(failure('ack', name, node, atMs, result))
      this.#choice.moveOnFrom(node)
      await delay(pauseMs * (0.5 + Math.random()))
    }
  }
}
