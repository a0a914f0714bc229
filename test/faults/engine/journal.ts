/** Every fact of a run, one JSON line each, beside the logs: to look up afterwards what became of a Work ID, and when. */
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { nowMs } from './clock.ts'
import type { Fact } from './facts.ts'

export class Journal {
  readonly #stream
  readonly #wallOffsetMs = Date.now() - nowMs()

  constructor(runPath: string) {
    this.#stream = createWriteStream(join(runPath, 'facts.jsonl'))
    // What cannot be written is no reason to end a run: the ledger has it too.
    this.#stream.on('error', () => undefined)
  }

  /** @param entry times in ms of the monotonic clock; `at` is added, as the logs of the processes tell it */
  write(entry: Fact | { readonly kind: string; readonly atMs: number }): void {
    const at = new Date(entry.atMs + this.#wallOffsetMs).toISOString()
    this.#stream.write(`${JSON.stringify({ at, ...entry })}\n`)
  }

  async close(): Promise<void> {
    await new Promise<void>(resolve => this.#stream.end(() => resolve()))
  }
}
