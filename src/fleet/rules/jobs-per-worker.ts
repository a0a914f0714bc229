/**
 * jobs-per-worker: one worker for every N jobs that are not finished, rounded up. The plain rule for those who know
 * their jobs better than a measurement does.
 */
import { backlogOf, plural, type SizeRule } from './rule.ts'

export const jobsPerWorker: SizeRule = snapshot => {
  const { settings } = snapshot
  if (settings.policy !== 'jobs-per-worker') return undefined
  const jobs = backlogOf(snapshot)
  if (jobs === 0) return undefined
  const workers = Math.ceil(jobs / settings.jobsPerWorker)
  const sentence = `${plural(jobs, 'job')} at ${settings.jobsPerWorker} jobs a worker need ${plural(workers, 'worker')}`
  return { workers, reason: 'jobs-per-worker', sentence }
}
