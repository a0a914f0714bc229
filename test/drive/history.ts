/** What happened to each job and around it, to be printed when something is wrong. */

export interface Line {
  readonly at: number
  readonly text: string
}

/** Of half an hour with many kills. */
const aroundKept = 10_000
const perJobKept = 60

export class History {
  readonly #startedAt: number
  readonly #jobs = new Map<string, Line[]>()
  readonly #around: Line[] = []

  constructor(startedAt: number) {
    this.#startedAt = startedAt
  }

  job(workId: string, at: number, text: string): void {
    const lines = this.#jobs.get(workId) ?? []
    this.#jobs.set(workId, lines)
    // The same news again and again (a look that shows nothing new) is told once.
    if (lines.at(-1)?.text === text) return
    lines.push({ at, text })
    if (lines.length > perJobKept) lines.splice(perJobKept / 2, 1)
  }

  /** What concerns all jobs: a kill, a pause. */
  around(at: number, text: string): void {
    this.#around.push({ at, text })
    if (this.#around.length > aroundKept) this.#around.shift()
  }

  /** The lines of a job, with what happened around it in its time. */
  of(workId: string): string[] {
    const own = this.#jobs.get(workId) ?? []
    const from = (own[0]?.at ?? 0) - 2000
    const to = (own.at(-1)?.at ?? 0) + 2000
    const near = this.#around.filter(({ at }) => at >= from && at <= to).slice(-20)
    const lines = [...own.map(line => ({ ...line, mark: ' ' })), ...near.map(line => ({ ...line, mark: '*' }))]
    return lines.sort((one, other) => one.at - other.at).map(({ at, mark, text }) => `${this.time(at)} ${mark} ${text}`)
  }

  /** The latest of what concerns all jobs. */
  latest(count: number): string[] {
    return this.#around.slice(-count).map(({ at, text }) => `${this.time(at)} * ${text}`)
  }

  time(at: number): string {
    return `+${((at - this.#startedAt) / 1000).toFixed(3)}s`.padStart(10)
  }
}
