/** paused: nothing is handed out from a paused queue, so its backlog needs nobody. Busy workers finish; the floor stays. */
import type { SizeRule } from './rule.ts'

export const paused: SizeRule = ({ load }) =>
  load.paused
    ? { workers: 0, reason: 'paused', sentence: 'the queue is paused, so its backlog needs no workers' }
    : undefined
