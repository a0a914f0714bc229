/** What may be left of a deployment when all its jobs are collected and forgotten, and what has leaked. Pure. */

export interface Left {
  /** Work IDs. */
  readonly jobs: readonly string[]
  /** Of Redis. */
  readonly keys: readonly string[]
  /** Of payloads, results and checkpoints. */
  readonly files: readonly string[]
}

/** Keys that a deployment has without any job, or that Redis lets go by itself. */
const constantKeys = [
  /^\{muster\}:/,
  /^\{muster:[^}]*\}:(sequence|stats|control|watchdog|marker|abandoned|lane-arrivals|lane-firsts|lost-by:.*)$/,
  /^\{muster:[^}]*\}:[^:]*:(meta|id|events|marker|metrics:.*|stalled-check|pc)$/,
]

/** @returns jobs and keys that must go, in words */
export const ofJobs = ({ jobs, keys }: Omit<Left, 'files'>): string[] => [
  ...jobs.map(workId => `job ${workId}`),
  ...keys.filter(key => !constantKeys.some(pattern => pattern.test(key))).map(key => `key ${key}`),
]

/**
 * @param ownerless so many files may belong to no job: what was on its way when a process was killed is swept when it is an
 *   hour old
 * @returns what has leaked, a sentence each
 */
export function leaked({ jobs, keys, files }: Left, ownerless: number): string[] {
  const found = ofJobs({ jobs, keys })
  return [
    ...(found.length === 0 ? [] : [`${found.length} are left: ${found.slice(0, 12).join(', ')}`]),
    ...(files.length <= ownerless
      ? []
      : [`${files.length} files are left, where ${ownerless} may be: ${files.slice(0, 5).join(', ')}`]),
  ]
}
