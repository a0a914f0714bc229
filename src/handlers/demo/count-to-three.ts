/** The type `countToThree`: a short chatty job, with a log line and progress at each number. */
import { defineHandler } from '../define-handler.ts'
import { pause } from './pause.ts'

const numbers = ['one', 'two', 'three']
const pauseMs = 100

export const countToThree = defineHandler({
  type: 'countToThree',
  description: 'A short chatty job: a log line and progress at each number.',
  async handle(_payload, context) {
    context.signal.throwIfAborted()
    for (const [index, number] of numbers.entries()) {
      if (index > 0) await pause(pauseMs, context.signal)
      context.log(number)
      context.progress((index + 1) / numbers.length, number)
    }
    return numbers.length
  },
})
