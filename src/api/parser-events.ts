/** Listeners of body parsers. A throw inside an emitter is outside of every promise and would end the process. */
import type { EventEmitter } from 'node:events'
import { once } from 'node:events'
import type { Writable } from 'node:stream'

/**
 * Like on(), except that what the listener throws ends the parser with that error.
 * @param parser the emitter itself when left out
 * @returns takes the listener away
 */
export function listen<Arguments extends unknown[]>(
  emitter: EventEmitter,
  event: string,
  listener: (...args: Arguments) => void,
  parser: Writable = emitter as Writable,
): () => void {
  const guarded = (...args: unknown[]): void => {
    try {
      listener(...(args as Arguments))
    } catch (error) {
      parser.destroy(error instanceof Error ? error : new Error(String(error)))
    }
  }
  emitter.on(event, guarded)
  return () => emitter.off(event, guarded)
}

/** Resolves when the parser has read all, rejects with its first fault. Later ones are nobody's. */
export function finishOf(parser: Writable): Promise<unknown> {
  parser.on('error', () => undefined)
  const finished = once(parser, 'finish')
  // It may be awaited late.
  finished.catch(() => undefined)
  return finished
}
