/** What a check says: one finding each, in words that a person can act on. */

export type Outcome = 'ok' | 'warn' | 'fail' | 'skipped'

export interface Finding {
  /** Stable: scripts may look for it. */
  readonly name: string
  readonly outcome: Outcome
  /** What was seen; of a check that was skipped, why. */
  readonly detail: string
  /** How to mend it; only with warn and fail. */
  readonly action?: string
}

export const ok = (name: string, detail: string): Finding => ({ name, outcome: 'ok', detail })
export const skipped = (name: string, detail: string): Finding => ({ name, outcome: 'skipped', detail })
export const warn = (name: string, detail: string, action: string): Finding => ({
  name,
  outcome: 'warn',
  detail,
  action,
})
export const fail = (name: string, detail: string, action: string): Finding => ({
  name,
  outcome: 'fail',
  detail,
  action,
})

export interface Fault {
  readonly isGrave: boolean
  readonly text: string
}

/** Many places looked at for one thing: the worst of them decides, and all that is wrong is told. */
export function sum(name: string, faults: readonly Fault[], action: string, whenWell: string): Finding {
  if (faults.length === 0) return ok(name, whenWell)
  const detail = faults.map(({ text }) => text).join('; ')
  return faults.some(({ isGrave }) => isGrave) ? fail(name, detail, action) : warn(name, detail, action)
}
