/** What is told to the model, and what it tells: jobs, looks, results, faults; with words for each. Pure. */
import { describeValue, type Expected, type Value } from './values.ts'

export type State = 'waiting' | 'delayed' | 'running' | 'succeeded' | 'dead' | 'cancelled'

/** What a job comes to when nobody interferes; both `value` and `errors`: either is right. */
export interface Ending {
  readonly value?: Expected
  /** Codes. */
  readonly errors?: readonly string[]
  /** Attempts that are spent then. */
  readonly attempts: number
  /** An interruption may save an attempt: what it would have done is in the checkpoint. */
  readonly mayBeFewer?: boolean
}

export interface JobSpec {
  readonly queue: string
  readonly type: string
  readonly timeoutMs: number
  readonly ending: Ending
  /** It may take its worker along: its neighbours are excused like those of a killed worker. */
  readonly killsWorkers?: true
}

/** What GET /jobs says of a job; only what is judged. */
export interface JobLook {
  readonly workId: string
  readonly queue?: string
  readonly type?: string
  readonly state: State
  readonly attemptsMade: number
  readonly attempts: number
  readonly lostLeases: number
  readonly startedAt?: string
  readonly collection?: 'uncollected' | 'leased' | 'acked'
  readonly error?: { readonly code: string; readonly message: string }
}

export type Outcome =
  | { readonly value: Value }
  | { readonly error: { readonly code: string; readonly message: string } }

export interface HandOut {
  readonly workId: string
  readonly queue?: string
  /** Left out when the value is still to be fetched: see `valued`. */
  readonly outcome?: Outcome
  /** When the pull was sent, and when its reply had been read. */
  readonly askedAt: number
  readonly at: number
  readonly lease?: { readonly id: string; readonly ms: number }
}

export type Disturbance = 'worker' | 'slot' | 'node' | 'redis' | 'room'

export const faultKinds = [
  ...([
    'lost',
    'doubled',
    'wrong value',
    'wrong outcome',
    'stuck',
    'came back',
    'attempt spent',
    'unknown job',
  ] as const),
  ...([
    'two jobs for one key',
    'one job for two owners',
    'leaked',
    'server error',
    'node ended',
    'no answer',
    'wrong answer',
  ] as const),
] as const
export type FaultKind = (typeof faultKinds)[number]

export interface Fault {
  readonly kind: FaultKind
  readonly at: number
  readonly sentence: string
  readonly workId?: string
}

export function describeEnding({ value, errors, attempts }: Ending): string {
  const ends = [
    ...(value === undefined ? [] : [describeValue(value)]),
    ...(errors === undefined ? [] : [`dead (${errors.join(', ')})`]),
  ]
  return `${ends.join(' or ')} after ${attempts} attempts`
}

export const describeOutcome = (outcome: Outcome): string =>
  'value' in outcome ? describeValue(outcome.value) : `${outcome.error.code}: ${outcome.error.message.slice(0, 200)}`

export const describeLook = ({ state, attemptsMade, lostLeases, collection, error }: JobLook): string =>
  [
    `seen ${state}`,
    `${attemptsMade} attempts`,
    ...(lostLeases > 0 ? [`${lostLeases} lost leases`] : []),
    ...(collection === undefined ? [] : [collection]),
    ...(error === undefined ? [] : [`${error.code}: ${error.message.slice(0, 120)}`]),
  ].join(', ')
