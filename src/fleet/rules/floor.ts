/** floor: never fewer than minWorkers. */
import type { SizeRule } from './rule.ts'

export const floor: SizeRule = ({ settings }, soFar) =>
  soFar.workers < settings.minWorkers
    ? {
        workers: settings.minWorkers,
        reason: 'floor',
        sentence: `${soFar.sentence}; the floor is ${settings.minWorkers}`,
      }
    : undefined
