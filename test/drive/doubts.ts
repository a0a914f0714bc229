/**
 * Requests whose answer nobody read, and what each of them excuses: a submission one job of its own queue, type and end; a
 * pull as many results of its queue as it asked for. Nothing beyond that. Pure.
 */
import type { Ending, Outcome } from './facts.ts'
import { isValue } from './values.ts'

export interface DoubtfulSubmission {
  readonly queue: string
  readonly type: string
  /** Left out when nobody knows what it would come to: its body was damaged, or cut off. */
  readonly ending?: Ending
}

export interface DoubtfulPull {
  readonly queue: string
  readonly at: number
  readonly top: number
}

/** A job that was seen, and of whose submission no answer is known. */
export interface Stranger {
  readonly workId: string
  queue?: string
  type?: string
  readonly outcomes: Outcome[]
}

export interface Uncollected {
  readonly workId: string
  readonly queue: string
  readonly acceptedAt: number
}

/** @returns the strangers that are left when each submission has excused the one that it can (a maximum matching) */
export function unexcusedStrangers(
  strangers: readonly Stranger[],
  submissions: readonly DoubtfulSubmission[],
): Stranger[] {
  const takenBy = new Map<number, Stranger>()
  const excuses = (stranger: Stranger, tried: Set<number>): boolean => {
    for (const [index, submission] of submissions.entries()) {
      if (tried.has(index) || !mayBe(stranger, submission)) continue
      tried.add(index)
      const other = takenBy.get(index)
      if (other !== undefined && !excuses(other, tried)) continue
      takenBy.set(index, stranger)
      return true
    }
    return false
  }
  return strangers.filter(stranger => !excuses(stranger, new Set()))
}

function mayBe(stranger: Stranger, { queue, type, ending }: DoubtfulSubmission): boolean {
  if (stranger.queue !== undefined && stranger.queue !== queue) return false
  if (stranger.type !== undefined && stranger.type !== type) return false
  return ending === undefined || stranger.outcomes.every(outcome => isOneOf(outcome, ending))
}

/** What a kill may do to a job is no part of how it ends. */
const codesOfKills = ['workers_lost', 'crash']

const isOneOf = (outcome: Outcome, { value, errors }: Ending): boolean =>
  'value' in outcome
    ? value !== undefined && isValue(outcome.value, value)
    : [...(errors ?? []), ...codesOfKills].includes(outcome.error.code)

/** @returns those that no pull can have taken: one takes only what was there by its end, and no more than it asked for */
export function unexcusedResults(results: readonly Uncollected[], pulls: readonly DoubtfulPull[]): Uncollected[] {
  const excusedOf = new Map<string, number>()
  // Whatever may have taken a late one may have taken each earlier one.
  return [...results]
    .sort((one, other) => other.acceptedAt - one.acceptedAt)
    .filter(({ queue, acceptedAt }) => {
      const able = pulls.filter(pull => pull.queue === queue && pull.at >= acceptedAt)
      const excused = excusedOf.get(queue) ?? 0
      if (excused >= able.reduce((sum, { top }) => sum + top, 0)) return true
      excusedOf.set(queue, excused + 1)
      return false
    })
}
