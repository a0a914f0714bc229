/** Sums up what a run found: one summary for the machine, one table for people. */
import type { Figures } from './figures.ts'
import { percentile, ratiosOf, type Spread, spreadOf } from './statistics.ts'

/** A figure with its least and greatest round. */
export type Figure = Spread

export interface Summary {
  /** PUT /enqueue in parts of BullMQ's add, jobs a second; the rounds compared pair by pair. */
  readonly enqueueRatio: Figure
  /** Jobs run and pulled, in parts of a BullMQ Worker. */
  readonly endToEndRatio: Figure
  /** Our ns per iteration in parts of Python's: below 1 is faster. Absent without Python. */
  readonly sha512Ratio?: Figure
  readonly enqueueJobsPerSecond: Figure
  readonly bullmqAddJobsPerSecond: Figure
  readonly bullmqAddBulkJobsPerSecond: Figure
  readonly endToEndJobsPerSecond: Figure
  readonly bullmqWorkerJobsPerSecond: Figure
  readonly passThroughJobsPerSecond: Figure
  readonly idleLatencyP50Ms: number
  readonly idleLatencyP99Ms: number
  readonly halfLoadJobsPerSecond: number
  readonly halfLoadLatencyP50Ms: number
  readonly halfLoadLatencyP99Ms: number
  readonly waitingJobBytes: number
  readonly finishedJobBytes: number
  readonly bullmqWaitingJobBytes: number
  readonly bullmqFinishedJobBytes: number
  readonly sha512NsPerIteration: Figure
  readonly pythonSha512NsPerIteration?: Figure
}

interface Goal {
  readonly atLeast?: number
  readonly atMost?: number
}

const goals: Partial<Record<keyof Summary, Goal>> = {
  enqueueRatio: { atLeast: 0.6 },
  endToEndRatio: { atLeast: 0.5 },
  sha512Ratio: { atMost: 0.6 },
  idleLatencyP50Ms: { atMost: 25 },
}

export function summarize({ jobsPerRound, elapsedMs, bytes, idleLatenciesMs, halfLoad, hash }: Figures): Summary {
  const perSecond = (rounds: readonly number[]): Figure => spreadOf(rounds.map(ms => (jobsPerRound * 1000) / ms))
  /** Of speeds, so the times are the other way round. */
  const speedRatio = (ours: readonly number[], theirs: readonly number[]): Figure =>
    spreadOf(ratiosOf(zip(theirs, ours)))
  const { nsPerIteration, pythonNsPerIteration } = hash
  const python =
    pythonNsPerIteration.length === 0
      ? {}
      : {
          sha512Ratio: spreadOf(ratiosOf(zip(nsPerIteration, pythonNsPerIteration))),
          pythonSha512NsPerIteration: spreadOf(pythonNsPerIteration),
        }
  return {
    enqueueRatio: speedRatio(elapsedMs.enqueue, elapsedMs.bullAdd),
    endToEndRatio: speedRatio(elapsedMs.endToEnd, elapsedMs.bullWork),
    enqueueJobsPerSecond: perSecond(elapsedMs.enqueue),
    bullmqAddJobsPerSecond: perSecond(elapsedMs.bullAdd),
    bullmqAddBulkJobsPerSecond: perSecond(elapsedMs.bullAddBulk),
    endToEndJobsPerSecond: perSecond(elapsedMs.endToEnd),
    bullmqWorkerJobsPerSecond: perSecond(elapsedMs.bullWork),
    passThroughJobsPerSecond: perSecond(elapsedMs.passThrough),
    idleLatencyP50Ms: percentile(idleLatenciesMs, 50),
    idleLatencyP99Ms: percentile(idleLatenciesMs, 99),
    halfLoadJobsPerSecond: halfLoad.jobsPerSecond,
    halfLoadLatencyP50Ms: percentile(halfLoad.latenciesMs, 50),
    halfLoadLatencyP99Ms: percentile(halfLoad.latenciesMs, 99),
    waitingJobBytes: bytes.waiting,
    finishedJobBytes: bytes.finished,
    bullmqWaitingJobBytes: bytes.bullWaiting,
    bullmqFinishedJobBytes: bytes.bullFinished,
    sha512NsPerIteration: spreadOf(nsPerIteration),
    ...python,
  }
}

const zip = (a: readonly number[], b: readonly number[]): [number, number][] =>
  a.flatMap((value, index) => (b[index] === undefined ? [] : [[value, b[index]] as [number, number]]))

/** Medians under their names; least and greatest rounds under `spreads`; and which goals were reached. */
export function toJson(summary: Summary): Record<string, unknown> {
  const medians: Record<string, number> = {}
  const spreads: Record<string, { min: number; max: number }> = {}
  const reached: Record<string, boolean> = {}
  for (const [name, value] of Object.entries(summary) as [keyof Summary, Figure | number][]) {
    const { median, min, max } = figureOf(value)
    medians[name] = short(median)
    if (typeof value !== 'number') spreads[name] = { min: short(min), max: short(max) }
    const goal = goals[name]
    if (goal !== undefined) reached[name] = isReached(goal, median)
  }
  return { ...medians, spreads, reached }
}

type Row = readonly [label: string, name: keyof Summary, unit: string]

const sections: readonly (readonly [title: string, rows: readonly Row[]])[] = [
  [
    'Enqueue',
    [
      ['PUT /enqueue, 64 connections', 'enqueueJobsPerSecond', 'jobs/s'],
      ['BullMQ add, 64 in flight', 'bullmqAddJobsPerSecond', 'jobs/s'],
      ['BullMQ addBulk(100)', 'bullmqAddBulkJobsPerSecond', 'jobs/s'],
      ['ours / BullMQ add', 'enqueueRatio', '×'],
    ],
  ],
  [
    'End to end, jobs that do nothing',
    [
      ['claimed, run, completed, pulled', 'endToEndJobsPerSecond', 'jobs/s'],
      ['BullMQ Worker, concurrency 50', 'bullmqWorkerJobsPerSecond', 'jobs/s'],
      ['ours / BullMQ Worker', 'endToEndRatio', '×'],
      ['put, run and pulled at once', 'passThroughJobsPerSecond', 'jobs/s'],
    ],
  ],
  [
    'Latency, PUT to result',
    [
      ['idle, p50', 'idleLatencyP50Ms', 'ms'],
      ['idle, p99', 'idleLatencyP99Ms', 'ms'],
      ['half load', 'halfLoadJobsPerSecond', 'jobs/s'],
      ['half load, p50', 'halfLoadLatencyP50Ms', 'ms'],
      ['half load, p99', 'halfLoadLatencyP99Ms', 'ms'],
    ],
  ],
  [
    'Redis memory, 256-byte payload',
    [
      ['waiting job', 'waitingJobBytes', 'bytes'],
      ['finished job', 'finishedJobBytes', 'bytes'],
      ['BullMQ, waiting job', 'bullmqWaitingJobBytes', 'bytes'],
      ['BullMQ, finished job', 'bullmqFinishedJobBytes', 'bytes'],
    ],
  ],
  [
    'SHA-512 chain, 1,000,000 iterations',
    [
      ['type sha512', 'sha512NsPerIteration', 'ns/iteration'],
      ["Python's hashlib", 'pythonSha512NsPerIteration', 'ns/iteration'],
      ['ours / Python', 'sha512Ratio', '×'],
    ],
  ],
]

export function toTable(summary: Summary): string {
  const lines: string[] = []
  for (const [title, rows] of sections) {
    lines.push('', title)
    for (const [label, name, unit] of rows)
      lines.push(`  ${label.padEnd(34)}${toCells(summary[name], unit, goals[name])}`)
  }
  return `${lines.join('\n').trimStart()}\n`
}

function toCells(value: Figure | number | undefined, unit: string, goal: Goal | undefined): string {
  if (value === undefined) return 'no python3 here'.padStart(10)
  const { median, min, max } = figureOf(value)
  const spread = typeof value === 'number' ? '' : `${format(min)} – ${format(max)}`
  const cells = `${format(median).padStart(10)} ${unit.padEnd(14)}${spread}`
  if (goal === undefined) return cells.trimEnd()
  const [sign, limit] = goal.atLeast === undefined ? ['≤', goal.atMost] : ['≥', goal.atLeast]
  return `${cells.padEnd(44)}goal ${sign} ${limit}: ${isReached(goal, median) ? 'reached' : 'not reached'}`
}

const figureOf = (value: Figure | number): Figure =>
  typeof value === 'number' ? { median: value, min: value, max: value } : value

const isReached = ({ atLeast, atMost }: Goal, value: number): boolean =>
  value >= (atLeast ?? Number.NEGATIVE_INFINITY) && value <= (atMost ?? Number.POSITIVE_INFINITY)

/** Three digits say all that the noise leaves. */
const short = (value: number): number => (value >= 100 ? Math.round(value) : Number(value.toPrecision(3)))

const format = (value: number): string => short(value).toLocaleString('en-US', { maximumFractionDigits: 3 })
