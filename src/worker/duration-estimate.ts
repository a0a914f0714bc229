/**
 * How long jobs take, from those that ended: quick to believe that they are long, slow to believe that they are short,
 * since one long job among many in a slot holds up those behind it.
 */
const rise = 0.25
const fall = 0.1
/** Types come from outside: no more than this many are remembered. */
const maxTypes = 2000

export class DurationEstimate {
  readonly #byType = new Map<string, number>()
  #overallMs: number | undefined

  observe(type: string, durationMs: number): void {
    if (this.#byType.size >= maxTypes && !this.#byType.has(type)) this.#byType.clear()
    this.#byType.set(type, blend(this.#byType.get(type), durationMs))
    this.#overallMs = blend(this.#overallMs, durationMs)
  }

  /** Expected duration of a job of this type; Infinity when none has ended yet. */
  ofTypeMs(type: string): number {
    return this.#byType.get(type) ?? Number.POSITIVE_INFINITY
  }

  /** Expected duration of the next job, whatever its type; Infinity when none has ended yet. */
  get overallMs(): number {
    return this.#overallMs ?? Number.POSITIVE_INFINITY
  }

  /** After an idle time what comes next may be of another kind. */
  forgetOverall(): void {
    this.#overallMs = undefined
  }
}

function blend(estimateMs: number | undefined, durationMs: number): number {
  if (estimateMs === undefined) return durationMs
  return estimateMs + (durationMs - estimateMs) * (durationMs > estimateMs ? rise : fall)
}
