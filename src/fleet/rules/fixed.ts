/** fixed: the number of workers that the settings name, whatever the backlog. */
import { plural, type SizeRule } from './rule.ts'

export const fixed: SizeRule = ({ settings }) =>
  settings.policy === 'fixed'
    ? {
        workers: settings.fixedWorkers,
        reason: 'fixed',
        sentence: `the pool is fixed at ${plural(settings.fixedWorkers, 'worker')}`,
      }
    : undefined
