/**
 * Watches what EC2 says of the end of its instance, by the metadata service (IMDSv2), every two seconds:
 *
 *   watching ──rebalance recommendation──▶ told ──instance action──▶ told again, over
 *       └───────────────────────instance action──────────────────────────▲
 *
 * An instance action comes two minutes ahead of the end, a rebalance recommendation earlier, with no time set. 404:
 * nothing.
 */
import type { Logger } from 'pino'
import { Pool } from 'undici'
import type { Interruption } from '../../contract/worker-protocol.ts'
import { pause } from '../../retry.ts'

export interface InterruptionWatchOptions {
  /** Of the metadata service, like http://169.254.169.254 */
  readonly url: string
  readonly log: Logger
  /** Called at most once for each kind. */
  readonly onNotice: (notice: Interruption) => void
}

const everyMs = 2000
/** It is answered by the host itself: who takes longer does not answer at all. */
const answerWithinMs = 1000
const tokenSeconds = 21_600
const notices = [
  { kind: 'interruption', path: '/latest/meta-data/spot/instance-action', timeOf: 'time' },
  { kind: 'rebalance', path: '/latest/meta-data/events/recommendations/rebalance', timeOf: 'noticeTime' },
] as const

export class InterruptionWatch {
  readonly #options: InterruptionWatchOptions
  readonly #pool: Pool
  readonly #path: string
  readonly #stopping = new AbortController()
  readonly #told = new Set<Interruption['kind']>()
  #token: string | undefined
  #failing = false
  #ended: Promise<void> | undefined

  constructor(options: InterruptionWatchOptions) {
    this.#options = options
    const url = new URL(options.url)
    this.#pool = new Pool(url.origin, { connect: { timeout: answerWithinMs } })
    this.#path = url.pathname.replace(/\/$/, '')
  }

  start(): void {
    this.#ended ??= this.#run()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#ended
    await this.#pool.destroy().catch(() => undefined)
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted && !this.#told.has('interruption')) {
      try {
        await this.#look()
        this.#failing = false
      } catch (error) {
        if (!signal.aborted && !this.#failing)
          this.#options.log.warn({ err: error }, 'the metadata of this instance cannot be read; trying again')
        this.#failing = true
      }
      await pause(everyMs, signal)
    }
  }

  async #look(): Promise<void> {
    for (const { kind, path, timeOf } of notices) {
      if (this.#told.has(kind)) continue
      const text = await this.#get(path)
      if (text === undefined) continue
      this.#told.add(kind)
      const notice = { kind, at: readTime(text, timeOf) }
      this.#options.log.warn({ ...notice, notice: text.slice(0, 200) }, 'the instance is to end')
      this.#options.onNotice(notice)
      // What comes after an interruption changes nothing.
      if (kind === 'interruption') return
    }
  }

  /** @returns undefined when there is no such thing */
  async #get(path: string): Promise<string | undefined> {
    for (let tried = 1; ; tried++) {
      this.#token ??= await this.#fetchToken()
      const { status, text } = await this.#call('GET', path, { 'x-aws-ec2-metadata-token': this.#token })
      if (status === 200) return text
      if (status === 404) return undefined
      // The token has run out.
      this.#token = undefined
      if (status !== 401 || tried === 2) throw new Error(`The metadata service answered ${status}`)
    }
  }

  async #fetchToken(): Promise<string> {
    const headers = { 'x-aws-ec2-metadata-token-ttl-seconds': String(tokenSeconds) }
    const { status, text } = await this.#call('PUT', '/latest/api/token', headers)
    if (status !== 200) throw new Error(`The metadata service gave no token: ${status}`)
    return text
  }

  async #call(
    method: 'GET' | 'PUT',
    path: string,
    headers: Record<string, string>,
  ): Promise<{ status: number; text: string }> {
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(answerWithinMs)])
    const reply = await this.#pool.request({ method, path: this.#path + path, headers, signal })
    return { status: reply.statusCode, text: await reply.body.text() }
  }
}

/** A notice without a time that can be read counts from now: better too early than too late. */
function readTime(text: string, field: string): string {
  try {
    const at = Date.parse((JSON.parse(text) as Record<string, string>)[field] ?? '')
    if (Number.isFinite(at)) return new Date(at).toISOString()
  } catch {
    // Not JSON: as above.
  }
  return new Date().toISOString()
}
