/**
 * Writes what a slot sends, in order: results, log lines and what handlers print. Each message is written at once, so
 * that a crash in the next instant loses nothing that was sent before it.
 */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { encodeFrame, encodeFrameHead } from '../protocol/frames.ts'
import type { FromSlot } from '../protocol/slot-protocol.ts'

/** A body above this is not copied into its frame. */
const copyUpToBytes = 65_536

export class SlotOutput {
  readonly #pipe: Socket

  constructor(pipe: Socket) {
    this.#pipe = pipe
  }

  send(message: FromSlot, body?: string | Uint8Array): void {
    if (body instanceof Uint8Array && body.length > copyUpToBytes) {
      this.#pipe.write(encodeFrameHead(message, body.length))
      this.#pipe.write(body)
    } else {
      this.#pipe.write(encodeFrame(message, body))
    }
  }

  /**
   * False while the agent has not taken all yet; the next job must wait, or an endless loop in it would keep the rest
   * here.
   */
  get isFlushed(): boolean {
    return this.#pipe.writableLength === 0
  }

  async flushed(): Promise<void> {
    while (!this.isFlushed) {
      if (this.#pipe.writableNeedDrain) await once(this.#pipe, 'drain')
      else await new Promise(setImmediate)
    }
  }

  /** What is printed through process.stdout and stderr (so by console too) becomes log lines of the job that runs. */
  captureConsole(target: { print(text: string): boolean }): void {
    for (const stream of [process.stdout, process.stderr]) {
      const write = stream.write.bind(stream) as (...given: unknown[]) => boolean
      const capture = (chunk: unknown, ...rest: unknown[]): boolean => {
        const text =
          typeof chunk === 'string' ? chunk : chunk instanceof Uint8Array ? Buffer.from(chunk).toString() : undefined
        if (text === undefined || !target.print(text)) return write(chunk, ...rest)
        const done = rest.find(item => typeof item === 'function') as (() => void) | undefined
        if (done !== undefined) process.nextTick(done)
        return true
      }
      stream.write = capture as typeof stream.write
    }
  }
}
