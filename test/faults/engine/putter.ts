/**
 * A client that submits at a steady rate, in open loop: a slow reply does not slow it down. A PUT that fails goes to the other
 * node, with pauses once both failed, until its time is over. Every second one has an Idempotency-Key.
 */
import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { nowMs } from './clock.ts'
import type { Fact } from './facts.ts'
import { failure, type HttpCaller, isLeaving } from './http-call.ts'
import { NodeChoice } from './node-choice.ts'

export interface PutterOptions {
  readonly name: string
  readonly nodeUrls: readonly string[]
  /** Which node it begins with. */
  readonly first: number
  readonly headers: Readonly<Record<string, string>>
  readonly jobsPerSecond: number
  readonly caller: HttpCaller
  readonly note: (fact: Fact) => void
}

const tickMs = 10
const answerWithinMs = 2500
const giveUpAfterMs = 6000
/** One in so many is a sha512 job; the others are of the type that counts its runs. */
const sha512Every = 5
const iterations = 3

export class Putter {
  readonly #options: PutterOptions
  readonly #choice: NodeChoice
  readonly #underWay = new Set<Promise<void>>()
  #timer: NodeJS.Timeout | undefined
  #count = 0

  constructor(options: PutterOptions) {
    this.#options = options
    this.#choice = new NodeChoice(options.nodeUrls, options.first)
  }

  start(): void {
    const { jobsPerSecond } = this.#options
    this.#choice.reset()
    const startedMs = nowMs()
    let begun = 0
    this.#timer = setInterval(() => {
      for (const due = ((nowMs() - startedMs) * jobsPerSecond) / 1000; begun < due; begun++) this.#begin()
    }, tickMs)
  }

  /** Submits no more; resolves when the last PUT was answered or given up. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await Promise.all(this.#underWay)
  }

  #begin(): void {
    const put = this.#put(this.#count++).finally(() => this.#underWay.delete(put))
    this.#underWay.add(put)
  }

  async #put(number: number): Promise<void> {
    const { name, headers, caller, note } = this.#options
    const { query, body, expected } = jobOf(`${name}/${number}`, number)
    const key = number % 2 === 0 ? `${name}-${number}` : undefined
    const givenUpMs = nowMs() + giveUpAfterMs
    for (let tries = 1; ; tries++) {
      const node = this.#choice.url
      const sentMs = nowMs()
      const result = await caller.call({
        method: 'PUT',
        url: `${node}/enqueue?${query}`,
        headers: {
          ...headers,
          'content-type': 'application/octet-stream',
          ...(key !== undefined && { 'idempotency-key': key }),
        },
        body,
        withinMs: answerWithinMs,
      })
      const atMs = nowMs()
      if (isLeaving(result)) this.#choice.moveOnFrom(node)
      if (result.ok) {
        const workId = (result.json as { 'Work ID': string })['Work ID']
        const durability = result.headers['muster-durability'] as string | undefined
        note({ kind: 'accepted', client: name, sentMs, atMs, workId, ...(key && { key }), expected, durability })
        return
      }
      note(failure('put', name, node, atMs, result))
      this.#choice.moveOnFrom(node)
      if (atMs > givenUpMs) return note({ kind: 'givenUp', client: name, atMs })
      if (tries % this.#options.nodeUrls.length === 0) await delay(pauseMs(tries))
    }
  }
}

/** 150 to 300 ms after the first round, doubling up to 1 s. */
const pauseMs = (tries: number): number => Math.min(1000, 150 * 2 ** (tries / 2)) * (0.5 + Math.random() / 2)

function jobOf(text: string, number: number): { query: string; body: string; expected: string } {
  if (number % sha512Every !== 0) return { query: 'type=tally', body: text, expected: `tally of ${text}` }
  let digest: Buffer = Buffer.from(text)
  for (let done = 0; done < iterations; done++) digest = createHash('sha512').update(digest).digest()
  return { query: `iterations=${iterations}`, body: text, expected: digest.toString('hex') }
}
