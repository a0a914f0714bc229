/** The type `noop`: does nothing with anything, so that what remains is the cost of the job itself. */
import { defineHandler } from '../define-handler.ts'

export const noop = defineHandler({ type: 'noop', description: 'Does nothing with anything.', handle: () => null })
