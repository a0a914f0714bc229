/** Of a worker that can do only a part of the work, beside those that can do all. */
export { echo, fail, rest } from './handlers.mjs'
