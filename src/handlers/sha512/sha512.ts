/**
 * The type `sha512`: SHA-512 applied `iterations` times to the payload's bytes; the value is the last digest in hex.
 */
import { defineHandler, FinalError, type HandlerContext } from '../define-handler.ts'
import { Pacer } from '../demo/pause.ts'
import { DigestChain } from './digest-chain.ts'

export const maxIterations = 10_000_000_000

/** Iterations between two looks at the clock: a fraction of a millisecond, also before the kernel is optimised. */
const stepIterations = 1000

export const sha512 = defineHandler<unknown>({
  type: 'sha512',
  description: 'SHA-512 of the data, applied `iterations` times; the value is the last digest in hex.',
  async handle(payload, context) {
    const data = bytesOf(payload)
    const iterations = iterationsOf(context)
    const pacer = new Pacer(context)
    const chain = new DigestChain(data)
    let done = 1
    while (done < iterations) {
      const count = Math.min(stepIterations, iterations - done)
      chain.advance(count)
      done += count
      await pacer.step(done / iterations)
    }
    context.progress(1)
    return chain.toHex()
  },
})

function bytesOf(payload: unknown): Uint8Array {
  if (payload === null || payload === undefined) return new Uint8Array()
  if (payload instanceof Uint8Array) return payload
  throw new FinalError('sha512 takes bytes: send them raw, as a file, or as base64 in {"data": "…"}.')
}

function iterationsOf(context: HandlerContext): number {
  const { iterations } = context.params
  if (
    typeof iterations === 'number' &&
    Number.isInteger(iterations) &&
    iterations >= 1 &&
    iterations <= maxIterations
  ) {
    return iterations
  }
  throw new FinalError(`sha512 needs the parameter iterations, a whole number from 1 to ${maxIterations}.`)
}
