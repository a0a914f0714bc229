/**
 * The two kinds of rules that `decide` applies in order. Both are pure: they get the snapshot and the time, and return
 * what they want; they read no clock and change nothing.
 */
import type { ReasonName } from '../reasons.ts'
import type { Action, PoolSnapshot } from '../snapshot.ts'

/** How many workers there should be, so far, and why. */
export interface Size {
  readonly workers: number
  readonly reason: ReasonName
  readonly explanation: string
}

/** Looks at the size that the rules before it arrived at; undefined leaves it as it is. */
export type SizeRule = (snapshot: PoolSnapshot, soFar: Size, now: number) => Size | undefined

/** What is settled when instances are looked at: the size, and the instances that an earlier rule already ends. */
export interface Plan {
  readonly desired: number
  readonly ending: ReadonlySet<string>
}

export type InstanceRule = (snapshot: PoolSnapshot, plan: Plan, now: number) => readonly Action[]

/** Jobs that are not finished: waiting, due within the target wait, and running. */
export const backlogOf = ({ load }: PoolSnapshot): number => load.waiting + load.dueDelayed + load.running

export const plural = (count: number, word: string): string => `${count} ${word}${count === 1 ? '' : 's'}`
