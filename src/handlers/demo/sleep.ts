/** The type `sleep`: does nothing for a while, as a long job that can be cancelled. */
import { defineHandler } from '../define-handler.ts'
import { pause } from './pause.ts'

/** Between two reports of progress. */
const stepMs = 250

export const sleep = defineHandler({
  type: 'sleep',
  description: 'Does nothing for a while, as a long job that can be cancelled.',
  payload: {
    type: 'object',
    required: ['ms'],
    properties: { ms: { type: 'integer', minimum: 0, maximum: 86_400_000 } },
    additionalProperties: false,
    examples: [{ ms: 1000 }],
  },
  async handle({ ms }, context) {
    context.signal.throwIfAborted()
    const startedMs = performance.now()
    const elapsedMs = () => performance.now() - startedMs
    // A timer may fire a little early: the clock decides.
    while (elapsedMs() < ms) {
      await pause(Math.min(stepMs, Math.ceil(ms - elapsedMs())), context.signal)
      context.progress(Math.min(1, elapsedMs() / ms))
    }
    context.progress(1)
    return { sleptMs: Math.floor(elapsedMs()) }
  },
})
