/**
 * target-wait: as many workers as finish the backlog within the target wait.
 *
 *   workers = ceil( jobs × min(serviceMs, targetWaitMs) ÷ (slots × targetWaitMs) )
 *
 * This is Little's law (L = λW): to finish `jobs` in targetWaitMs, λ = jobs ÷ targetWaitMs must complete, which keeps
 * L = λ × serviceMs slots busy. One job cannot use more than one slot for the whole of the wait, hence the min: a job
 * that takes longer than the target wait counts as exactly one slot.
 * A queue whose service time was never measured is taken to need half a second a job, so that a few tiny ones do not
 * launch a worker each. While its first jobs run the guess grows (service-time.ts), up to one slot a job.
 */
import { firstGuessMs } from '../service-time.ts'
import { backlogOf, plural, type SizeRule } from './rule.ts'

export const targetWait: SizeRule = snapshot => {
  const { settings, load } = snapshot
  if (settings.policy !== 'target-wait') return undefined
  const jobs = backlogOf(snapshot)
  if (jobs === 0) return undefined
  const serviceMs = load.serviceMs ?? Math.min(firstGuessMs, settings.targetWaitMs)
  const workMs = jobs * Math.min(serviceMs, settings.targetWaitMs)
  const workers = Math.max(1, Math.ceil(workMs / (settings.slots * settings.targetWaitMs)))
  const measured = load.serviceMs === undefined ? 'not measured yet, taken as' : 'at'
  const sentence =
    `${plural(jobs, 'job')} (${load.waiting} waiting, ${load.dueDelayed} due, ${load.running} running) ${measured} ` +
    `${roundMs(serviceMs)} ms each, to finish within ${settings.targetWaitMs} ms on ${plural(settings.slots, 'slot')} a worker, need ${plural(workers, 'worker')}`
  return { workers, reason: 'target-wait', sentence }
}

const roundMs = (ms: number): number => (ms < 10 ? Math.round(ms * 100) / 100 : Math.round(ms))
