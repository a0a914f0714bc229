/** Looks at the deployment while it works and at the end, and tells the model what it sees. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { JobLook } from './facts.ts'
import { NoAnswer } from './http.ts'
import { IdleWait } from './idle-wait.ts'
import type { Stage } from './move.ts'
import { ack, pull, queueNames } from './moves/collect.ts'
import { look } from './moves/jobs.ts'

interface WorkerView {
  readonly workerId: string
  readonly state: string
  readonly leases: number
  readonly types: readonly string[]
}

interface ListedJob extends JobLook {
  readonly queue: string
  readonly type: string
}

export interface OracleOptions {
  readonly stage: Stage
  /** What a busy machine may add. */
  readonly slackMs: number
}

const lookEveryMs = 1000
const mostNodeBytes = 1_500 * 1024 * 1024

export class Oracle {
  readonly #stage: Stage
  readonly #slackMs: number
  readonly #idleWait: IdleWait
  /** The most that a node held in memory. */
  peakNodeBytes = 0

  constructor({ stage, slackMs }: OracleOptions) {
    this.#stage = stage
    this.#slackMs = slackMs
    this.#idleWait = new IdleWait(slackMs)
  }

  /** Until told to stop; an outage is for the moves to judge. */
  async watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.lookOnce()
      } catch (error) {
        if (!(error instanceof NoAnswer)) throw error
      }
      await delay(lookEveryMs, undefined, { signal }).catch(() => undefined)
    }
  }

  async lookOnce(): Promise<void> {
    const { http, model, closedQueues, deployment } = this.#stage
    if (this.#stage.calmForMs() < 2 * lookEveryMs) this.#idleWait.disturb()
    const [fleet, running, waiting] = await Promise.all([
      http.call('GET', '/fleet'),
      http.call('GET', '/jobs?limit=1000&state=running'),
      http.call('GET', '/jobs?limit=1000&state=waiting'),
    ])
    for (const reply of [running, waiting])
      if (reply.status === 200)
        for (const job of reply.json().jobs as ListedJob[]) model.looked(job, reply.askedAt, reply.at)
    if (fleet.status === 200 && waiting.status === 200) {
      const pools = fleet.json().pools as { queue: string; workers: WorkerView[] }[]
      const idle = pools.flatMap(({ queue, workers }) =>
        workers
          .filter(({ state, leases }) => state === 'ready' && leases === 0)
          .map(({ workerId, types }) => ({ workerId, queue, types })),
      )
      const looks = { at: waiting.at, idleWorkers: idle, waiting: waiting.json().jobs as ListedJob[], closedQueues }
      for (const { workId, sentence } of this.#idleWait.look(looks)) model.fault('stuck', waiting.at, sentence, workId)
    }
    if (deployment !== undefined) await this.#memory()
  }

  /**
   * After the last move: collects until every job is over.
   * Gives up when nothing has changed for a long time, and leaves it to the model to say what is wrong.
   */
  async settle(): Promise<void> {
    const { http, model, leases } = this.#stage
    for (const queue of queueNames) await http.insist('POST', `/queues/${queue}/resume`)
    let lastChangeAt = Date.now()
    let lastOpen = -1
    for (;;) {
      for (const lease of leases.splice(0)) await this.#patiently(async () => await ack(this.#stage, lease))
      for (const queue of queueNames)
        await this.#patiently(async () => await pull(this.#stage, queue, { top: 1000, failed: 'include' }))
      const open = [...model.jobs.values()].filter(job => !model.isOver(job))
      await this.#patiently(async () => await this.lookOnce())
      for (const { workId } of open.slice(0, 200)) await this.#patiently(async () => await look(this.#stage, workId))
      // A result under a lease that its client left alone comes again when that has run out.
      const awaited = open.length + model.unexcused().length
      if (awaited === 0) break
      if (awaited !== lastOpen) lastChangeAt = Date.now()
      lastOpen = awaited
      if (Date.now() - lastChangeAt > 2 * this.#slackMs) break
      await delay(300)
    }
    await this.#lookAtAll()
  }

  /** Every job that is there, once. */
  async #lookAtAll(): Promise<void> {
    const { http, model } = this.#stage
    for (let cursor = ''; ; ) {
      const reply = await http.insist('GET', `/jobs?limit=1000${cursor}`)
      if (reply.status !== 200) return
      const page = reply.json() as { jobs: JobLook[]; nextCursor?: string }
      for (const job of page.jobs) model.looked(job, reply.askedAt, reply.at)
      if (page.nextCursor === undefined) break
      cursor = `&cursor=${encodeURIComponent(page.nextCursor)}`
    }
  }

  async #patiently(work: () => Promise<unknown>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error
    }
  }

  async #memory(): Promise<void> {
    const { deployment, model } = this.#stage
    if (deployment === undefined) return
    const processes = await deployment.processes()
    for (const name of deployment.nodes) {
      const pid = deployment.pidOf(name)
      const bytes = processes.find(one => one.pid === pid)?.residentBytes ?? 0
      this.peakNodeBytes = Math.max(this.peakNodeBytes, bytes)
      if (bytes > mostNodeBytes) model.fault('leaked', Date.now(), `${name} holds ${bytes} bytes of memory`)
    }
  }
}

/** Files of large payloads and results under a data directory. */
export async function payloadFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  return entries
    .filter(entry => entry.isFile() && /(payload|result|checkpoint)-|%/.test(entry.name))
    .map(entry => join(entry.parentPath, entry.name))
}
