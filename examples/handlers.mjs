/** A type of your own, in JavaScript: `muster node --handlers examples/handlers.mjs`. */
import { createHash } from 'node:crypto'
import { defineHandler } from 'muster'

export const fingerprint = defineHandler({
  type: 'fingerprint',
  /** Bytes come as a Buffer, JSON as its value. What is returned is the job's value. */
  handle(payload) {
    const bytes = Buffer.isBuffer(payload) ? payload : Buffer.from(JSON.stringify(payload))
    return createHash('sha256').update(bytes).digest('hex')
  },
})
