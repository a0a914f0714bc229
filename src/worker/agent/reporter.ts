/**
 * Completions: gathered, sent in batches, kept and sent again until a node has them. The same call asks for the next
 * jobs.
 *
 *   report ──(large value: upload first)──▶ waiting ──▶ sent ──▶ answered, also "stale": forgotten
 *                                              ▲          │ no node, or it cannot now
 *                                              └──────────┘ (and nothing is claimed meanwhile)
 */
import type { Logger } from 'pino'
import type { AttemptError, CompleteReply, Content } from '../../contract/worker-protocol.ts'
import { Backoff } from '../../retry.ts'
import type { Attempt, Outcome } from '../attempts/attempt.ts'
import type { AttemptTable } from '../attempts/attempt-table.ts'
import { hasCode, isPassing, type NodeClient, NodeError } from '../node/node-client.ts'
import type { UpdateLoop } from './update-loop.ts'
import { checkpointKept, Uploader } from './uploads.ts'

export interface ReporterOptions {
  readonly client: NodeClient
  readonly workerId: string
  readonly queue: string
  readonly inlineBytes: number
  readonly log: Logger
  readonly attempts: AttemptTable
  readonly updates: UpdateLoop
  /** How many jobs to ask for along with completions. */
  readonly prefetch: () => number
  /** Digest of the handlers of the nodes that this worker follows; undefined: it follows none. */
  readonly handlers: () => string | undefined
  readonly onReply: (reply: CompleteReply) => void
  readonly register: (signal: AbortSignal) => Promise<unknown>
}

interface Entry {
  readonly attempt: Attempt
  readonly text: string
}

/** Calls in flight: a second one keeps node and worker busy while the first is on its way. */
const callsAtOnce = 2
const batchCount = 200
/** At most 3 MiB as UTF-8, and so is a single completion: a node takes 4 MiB. */
const batchChars = 1024 * 1024
/** How long a completion may linger while another call is in flight, unless many have gathered. */
const lingerMs = 4
const enoughCount = 100
/** Undelivered values above this stop the claims. */
const mostHeldChars = 64 * 1024 * 1024

export class Reporter {
  readonly #options: ReporterOptions
  readonly #uploader: Uploader
  readonly #stopping = new AbortController()
  readonly #backoff = new Backoff(100, 2000)
  #waiting: Entry[] = []
  #waitingChars = 0
  #preparingCount = 0
  #callCount = 0
  #asked = 0
  #failing = false
  #flushDue = false
  #lingerTimer: NodeJS.Timeout | undefined

  constructor(options: ReporterOptions) {
    this.#options = options
    this.#uploader = new Uploader(options.client)
  }

  /** Jobs that calls in flight ask for. */
  get askedCount(): number {
    return this.#asked
  }

  /** Completions cannot be delivered now, or too much is held: nothing more should be claimed. */
  get isBlocked(): boolean {
    return this.#failing || this.#waitingChars + this.#uploader.heldBytes > mostHeldChars
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#callCount === 0 && this.#preparingCount === 0
  }

  /** Takes the outcome of an attempt; reads the value's bytes before it returns. */
  report(attempt: Attempt, outcome: Outcome): void {
    if (attempt.place === 'gone') return
    attempt.place = 'reporter'
    const isLarge = 'value' in outcome && outcome.value.bytes.length > this.#options.inlineBytes
    const mustWait = attempt.logsInFlight !== undefined || attempt.hasLogs || attempt.checkpointing !== undefined
    if (isLarge || mustWait) void this.#prepareOrFail(attempt, keep(outcome))
    else this.#pushSmall(attempt, outcome)
  }

  /** Stops sending. What a node does not have by now is not reported. */
  stop(): void {
    this.#stopping.abort()
    this.#uploader.stop()
    clearTimeout(this.#lingerTimer)
  }

  /** Never throws: what cannot be told in full is told as a failure. */
  async #prepareOrFail(attempt: Attempt, outcome: Outcome): Promise<void> {
    this.#preparingCount += 1
    try {
      await this.#prepare(attempt, outcome)
    } catch (error) {
      this.#pushFault(attempt, error)
    } finally {
      this.#preparingCount -= 1
    }
  }

  /** What cannot be written down at once: its log is still on its way, or its value has to be uploaded. */
  async #prepare(attempt: Attempt, outcome: Outcome): Promise<void> {
    const { updates, inlineBytes, attempts } = this.#options
    await updates.settle(attempt)
    // A failed attempt's last checkpoint goes ahead of its outcome, which ends the lease.
    if ('error' in outcome) await checkpointKept(attempt, this.#stopping.signal)
    if ('error' in outcome || outcome.value.bytes.length <= inlineBytes) {
      this.#pushSmall(attempt, outcome)
    } else {
      const { kind, bytes } = outcome.value
      const stored = await this.#uploader.upload(attempt, kind, bytes)
      if (stored.kind === 'lost') attempts.remove([attempt])
      else if (stored.kind === 'refused') this.#push(attempt, outcome.durationMs, { error: stored.error })
      else this.#push(attempt, outcome.durationMs, { value: { content: stored.content } })
    }
  }

  #pushSmall(attempt: Attempt, outcome: Outcome): void {
    try {
      this.#push(attempt, outcome.durationMs, 'error' in outcome ? outcome : { value: inline(outcome.value) })
    } catch (error) {
      this.#pushFault(attempt, error)
    }
  }

  /** An outcome that cannot be encoded is reported as a failure. */
  #pushFault(attempt: Attempt, error: unknown): void {
    this.#options.log.error({ err: error, workId: attempt.ref.workId }, 'an outcome cannot be written down')
    const message = `The outcome cannot be written down: ${error instanceof Error ? error.message : String(error)}`
    this.#push(attempt, 0, { error: { code: 'result_refused', message, retryable: false } })
  }

  #push(attempt: Attempt, durationMs: number, end: Parameters<typeof completionText>[2]): void {
    const text = completionText(attempt, durationMs, end)
    this.#waiting.push({ attempt, text })
    this.#waitingChars += text.length
    this.#schedule()
  }

  /** At once when nothing is in flight, else when enough has gathered or a few ms have passed. */
  #schedule(): void {
    if (this.#flushDue || this.#failing || this.#waiting.length === 0 || this.#callCount >= callsAtOnce) return
    if (this.#callCount === 0 || this.#waiting.length >= enoughCount) {
      this.#flushDue = true
      // After all messages that came together: they go together.
      setImmediate(() => {
        this.#flushDue = false
        void this.#flush()
      })
    } else if (this.#lingerTimer === undefined) {
      this.#lingerTimer = setTimeout(() => {
        this.#lingerTimer = undefined
        if (this.#callCount < callsAtOnce && !this.#failing) void this.#flush()
      }, lingerMs)
    }
  }

  async #flush(): Promise<void> {
    if (this.#stopping.signal.aborted) return
    clearTimeout(this.#lingerTimer)
    this.#lingerTimer = undefined
    const batch = this.#takeBatch()
    if (batch.length === 0) return
    this.#callCount += 1
    const delivered = await this.#deliver(batch)
    this.#callCount -= 1
    if (!delivered) this.#requeue(batch)
    if (!delivered && !this.#failing) void this.#recover()
    this.#schedule()
  }

  /** After a failure: one call at a time, with growing pauses, until one gets through. */
  async #recover(): Promise<void> {
    const { signal } = this.#stopping
    this.#failing = true
    while (!signal.aborted) {
      await this.#backoff.wait(signal)
      if (signal.aborted) return
      const batch = this.#takeBatch()
      if (batch.length === 0 || (await this.#deliver(batch))) break
      this.#requeue(batch)
    }
    this.#backoff.reset()
    this.#failing = false
    this.#schedule()
    this.#options.attempts.events.onRoom()
  }

  /** @returns false when the batch has to be sent again */
  async #deliver(batch: readonly Entry[]): Promise<boolean> {
    const { client, workerId, queue, onReply, log } = this.#options
    const claim = this.#failing ? 0 : this.#options.prefetch()
    this.#asked += claim
    const head = JSON.stringify({ workerId, queue, claim, handlers: this.#options.handlers() }).slice(0, -1)
    let reply: CompleteReply
    try {
      reply = await client.complete(`${head},"results":[${batch.map(entry => entry.text).join(',')}]}`, {
        rounds: 1,
        signal: this.#stopping.signal,
      })
    } catch (error) {
      this.#asked -= claim
      return await this.#onFailure(batch, error)
    }
    this.#asked -= claim
    for (const { workId, outcome } of reply.results)
      if (outcome === 'stale') log.debug({ workId }, 'the lease of this result was gone')
    this.#options.attempts.remove(batch.map(entry => entry.attempt))
    onReply(reply)
    return true
  }

  async #onFailure(batch: readonly Entry[], error: unknown): Promise<boolean> {
    const { register, log } = this.#options
    const { signal } = this.#stopping
    if (signal.aborted) return false
    if (hasCode(error, 'worker_unknown')) {
      await register(signal).catch(() => undefined)
      return false
    }
    if (!(error instanceof NodeError) || isPassing(error) || [401, 403].includes(error.status)) {
      if (!this.#failing)
        log.warn(
          { err: error, waiting: this.#waiting.length + batch.length },
          'results cannot be delivered now; they are kept',
        )
      return false
    }
    // The node rejects something in it: halves find out what, and the rest gets through.
    if (batch.length > 1) {
      const middle = Math.ceil(batch.length / 2)
      for (const half of [batch.slice(0, middle), batch.slice(middle)])
        if (!(await this.#deliver(half))) this.#requeue(half)
      return true
    }
    const attempt = batch[0]?.attempt as Attempt
    log.error({ err: error, workId: attempt.ref.workId }, 'a node does not accept this completion')
    if (attempt.isRefused) {
      this.#options.attempts.remove([attempt])
    } else {
      attempt.isRefused = true
      this.#push(attempt, 0, { error: { code: 'result_refused', message: error.message, retryable: false } })
    }
    return true
  }

  #takeBatch(): Entry[] {
    let chars = 0
    let count = 0
    while (count < this.#waiting.length && count < batchCount) {
      chars += this.#waiting[count]?.text.length ?? 0
      if (count > 0 && chars > batchChars) break
      count++
    }
    const taken = this.#waiting.splice(0, count)
    for (const { text } of taken) this.#waitingChars -= text.length
    // A stop order came in the meantime: no node takes the outcome any more.
    return taken.filter(({ attempt }) => attempt.place === 'reporter')
  }

  #requeue(batch: readonly Entry[]): void {
    this.#waiting.unshift(...batch)
    for (const { text } of batch) this.#waitingChars += text.length
  }
}

function inline({ kind, bytes }: Extract<Outcome, { value: unknown }>['value']): Value {
  return kind === 'json' ? { jsonText: bytes.toString('utf8') } : { content: { base64: bytes.toString('base64') } }
}

/** The bytes of a value lie in a buffer that is used again. */
function keep(outcome: Outcome): Outcome {
  if ('error' in outcome) return outcome
  const { kind, bytes } = outcome.value
  return {
    durationMs: outcome.durationMs,
    value: { kind, bytes: bytes.length === bytes.buffer.byteLength ? bytes : Buffer.from(bytes) },
  }
}

/** Completions as JSON text: written once, when an attempt ends, however often they are sent. */
const maxMessageChars = 16_384
const maxStackChars = 16_384

/** Where the value of a completion stands. */
export type Value = { readonly jsonText: string } | { readonly content: Content }

/**
 * One entry of CompleteRequest.results. Takes the rest of the attempt's log with it.
 * A JSON value comes as the text that the slot wrote, and is not parsed here.
 */
export function completionText(
  attempt: Attempt,
  durationMs: number,
  end: { value: Value } | { error: AttemptError },
): string {
  const { workId, token, type } = attempt.lease
  const logs = attempt.closeLogs()
  const head = JSON.stringify({ workId, token, type, durationMs, ...(logs === undefined ? {} : { logs }) }).slice(0, -1)
  if ('error' in end) return `${head},"error":${JSON.stringify(cut(end.error))}}`
  return `${head},"value":${'jsonText' in end.value ? `{"json":${end.value.jsonText}}` : JSON.stringify(end.value.content)}}`
}

function cut({ stack, ...error }: AttemptError): AttemptError {
  return {
    ...error,
    message: String(error.message).slice(0, maxMessageChars),
    ...(typeof stack === 'string' ? { stack: stack.slice(0, maxStackChars) } : {}),
  }
}
