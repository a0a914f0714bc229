/** ceiling: never more than maxWorkers. */
import type { SizeRule } from './rule.ts'

export const ceiling: SizeRule = ({ settings }, soFar) =>
  soFar.workers > settings.maxWorkers
    ? {
        workers: settings.maxWorkers,
        reason: 'ceiling',
        sentence: `${soFar.sentence}; the ceiling is ${settings.maxWorkers}`,
      }
    : undefined
