/**
 * Which version of a handler may have run a job: one that was deployed between its submission and its end, or was being
 * replaced a moment before. Pure.
 */
export class Versions {
  readonly #lagMs: number
  readonly #deployed: { readonly version: number; readonly askedAt: number; answeredAt?: number }[]

  /** @param lagMs so long after a deployment no node gives a job to a worker that runs another */
  constructor(first: number, lagMs: number) {
    this.#lagMs = lagMs
    this.#deployed = [{ version: first, askedAt: 0, answeredAt: 0 }]
  }

  /** From now on some worker may run it. */
  asked(version: number, at: number): void {
    this.#deployed.push({ version, askedAt: at })
  }

  /** It has taken the place of all before it. */
  answered(version: number, at: number): void {
    const one = this.#deployed.find(each => each.version === version)
    if (one !== undefined) one.answeredAt = at
  }

  mayHaveRun(version: unknown, submittedAt: number, endedAt: number): boolean {
    const index = this.#deployed.findIndex(each => each.version === version)
    const found = this.#deployed[index]
    if (found === undefined || found.askedAt > endedAt) return false
    const replacedAt = this.#deployed.slice(index + 1).find(({ answeredAt }) => answeredAt !== undefined)?.answeredAt
    return replacedAt === undefined || replacedAt + this.#lagMs >= submittedAt
  }
}
