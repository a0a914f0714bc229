/** A handler's context that keeps what the handler tells. */
import type { HandlerContext, JsonValue } from '../../src/handlers/define-handler.ts'

export class RecordingContext implements HandlerContext {
  readonly workId = 'w1'
  readonly type = 'test'
  readonly attempt = 1
  readonly attempts = 1
  readonly params: Readonly<Record<string, JsonValue>>
  readonly signal: AbortSignal
  readonly fractions: number[] = []
  readonly lines: string[] = []
  readonly checkpoints: Buffer[] = []
  lastCheckpoint: Buffer | undefined

  constructor(params: Readonly<Record<string, JsonValue>> = {}, signal: AbortSignal = new AbortController().signal) {
    this.params = params
    this.signal = signal
  }

  progress(fraction: number): void {
    this.fractions.push(fraction)
  }

  log(line: string): void {
    this.lines.push(line)
  }

  async checkpoint(bytes: Uint8Array): Promise<void> {
    this.checkpoints.push(Buffer.from(bytes))
  }

  /** Undefined, or what is wrong with the progress of a finished job: it must rise from 0 to 1, and end there. */
  faultOfProgress(): string | undefined {
    const { fractions } = this
    if (fractions.at(-1) !== 1) return `ends at ${fractions.at(-1)}`
    const fault = fractions.findIndex((fraction, index) => !(fraction >= (fractions[index - 1] ?? 0) && fraction <= 1))
    return fault === -1 ? undefined : `goes from ${fractions[fault - 1]} to ${fractions[fault]}`
  }
}
