/** The rules that say how many workers a pool needs. Each one corrects the size that those before it gave. */
import { firstGuessMs } from '../../measure/estimators.ts'
import { backlogOf, plural, type SizeRule } from './rule.ts'

/** floor: never fewer than minWorkers. */
export const floor: SizeRule = ({ settings }, soFar) =>
  soFar.workers < settings.minWorkers
    ? {
        workers: settings.minWorkers,
        reason: 'floor',
        explanation: `${soFar.explanation}; the floor is ${settings.minWorkers}`,
      }
    : undefined

/** ceiling: never more than maxWorkers. */
export const ceiling: SizeRule = ({ settings }, soFar) =>
  soFar.workers > settings.maxWorkers
    ? {
        workers: settings.maxWorkers,
        reason: 'ceiling',
        explanation: `${soFar.explanation}; the ceiling is ${settings.maxWorkers}`,
      }
    : undefined

/** fixed: the number of workers that the settings name, whatever the backlog. */
export const fixed: SizeRule = ({ settings }) =>
  settings.policy === 'fixed'
    ? {
        workers: settings.fixedWorkers,
        reason: 'fixed',
        explanation: `the pool is fixed at ${plural(settings.fixedWorkers, 'worker')}`,
      }
    : undefined

/**
 * target-wait: as many workers as finish the backlog within the target wait.
 *
 *   workers = ceil( jobs × min(serviceMs, targetWaitMs) ÷ (slots × targetWaitMs) )
 *
 * This is Little's law (L = λW): to finish `jobs` in targetWaitMs, λ = jobs ÷ targetWaitMs must complete, which keeps
 * L = λ × serviceMs slots busy. One job cannot use more than one slot for the whole of the wait, hence the min: a job
 * that takes longer than the target wait counts as exactly one slot.
 * A queue whose service time was never measured is taken to need half a second a job, so that a few tiny ones do not
 * launch a worker each. While its first jobs run the guess grows (estimators.ts), up to one slot a job.
 */
export const targetWait: SizeRule = snapshot => {
  const { settings, load } = snapshot
  if (settings.policy !== 'target-wait') return undefined
  const jobs = backlogOf(snapshot)
  if (jobs === 0) return undefined
  const serviceMs = load.serviceMs ?? Math.min(firstGuessMs, settings.targetWaitMs)
  const workMs = jobs * Math.min(serviceMs, settings.targetWaitMs)
  const workers = Math.max(1, Math.ceil(workMs / (settings.slots * settings.targetWaitMs)))
  const measured = load.serviceMs === undefined ? 'not measured yet, taken as' : 'at'
  const explanation =
    `${plural(jobs, 'job')} (${load.waiting} waiting, ${load.dueDelayed} due, ${load.running} running) ${measured} ` +
    `${roundMs(serviceMs)} ms each, to finish within ${settings.targetWaitMs} ms on ${plural(settings.slots, 'slot')} a worker, need ${plural(workers, 'worker')}`
  return { workers, reason: 'target-wait', explanation }
}

const roundMs = (ms: number): number => (ms < 10 ? Math.round(ms * 100) / 100 : Math.round(ms))

/**
 * jobs-per-worker: one worker for every N jobs that are not finished, rounded up. The plain rule for those who know
 * their jobs better than a measurement does.
 */
export const jobsPerWorker: SizeRule = snapshot => {
  const { settings } = snapshot
  if (settings.policy !== 'jobs-per-worker') return undefined
  const jobs = backlogOf(snapshot)
  if (jobs === 0) return undefined
  const workers = Math.ceil(jobs / settings.jobsPerWorker)
  const explanation = `${plural(jobs, 'job')} at ${settings.jobsPerWorker} jobs a worker need ${plural(workers, 'worker')}`
  return { workers, reason: 'jobs-per-worker', explanation }
}
