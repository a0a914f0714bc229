/** Types of your own, in TypeScript: `muster node --handlers examples/handlers.ts`. */
import { defineHandler, FinalError, type HandlerContext } from 'muster'
import { countWords } from './lib/count-words.ts'

/** A payload with a schema: what does not fit is refused when it is submitted, and `text` has its type here. */
export const wordCount = defineHandler({
  type: 'wordCount',
  payload: {
    type: 'object',
    required: ['text'],
    properties: { text: { type: 'string' } },
    additionalProperties: false,
  },
  handle: ({ text }) => countWords(text),
})

/** Any bytes, progress, and an error that no further attempt can cure. */
export const byteSum = defineHandler({
  type: 'byteSum',
  handle(payload: unknown, context: HandlerContext) {
    if (!Buffer.isBuffer(payload)) throw new FinalError('Send bytes: -H "Content-Type: application/octet-stream"')
    context.log(`adds up ${payload.length} bytes`)
    let sum = 0
    for (const byte of payload) sum += byte
    context.progress(1)
    return { sum }
  },
})
