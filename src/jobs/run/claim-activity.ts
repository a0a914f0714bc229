/** What goes on at the claims of one queue on this node: who asks, and what is handed out. The watchdog looks at it. */
interface Question {
  /** undefined: not known, since Redis does not say what the worker declared. */
  readonly types: readonly string[] | undefined
  /** performance.now() of the latest one. */
  askedAtMs: number
  /** Those that have no answer yet. */
  openCount: number
}

/** More kinds of workers than this at once: the oldest are forgotten, which only makes the watchdog see less. */
const maxKinds = 1000

export class ClaimActivity {
  /** Jobs handed out, ever: by claims, and along with completions. */
  claimedCount = 0
  readonly #questions = new Map<string, Question>()

  /** A worker that may claim asks for jobs of these types. */
  asked(types: readonly string[] | undefined): void {
    this.#ask(types)
  }

  /** The same, and it waits for the answer. */
  async during<T>(types: readonly string[], answer: () => Promise<T>): Promise<T> {
    const question = this.#ask(types)
    question.openCount += 1
    try {
      return await answer()
    } finally {
      question.openCount -= 1
    }
  }

  /** Whether workers ask for this type now, or asked since then (in performance.now()); undefined when nobody asks. */
  askedFor(sinceMs: number): ((type: string) => boolean) | undefined {
    const asked = [...this.#questions.values()].filter(
      ({ askedAtMs, openCount }) => openCount > 0 || askedAtMs > sinceMs,
    )
    if (asked.length === 0) return undefined
    if (asked.some(({ types }) => types === undefined)) return () => true
    const all = new Set(asked.flatMap(({ types = [] }) => types))
    return type => all.has(type)
  }

  #ask(types: readonly string[] | undefined): Question {
    const kind = JSON.stringify(types ?? null)
    const known = this.#questions.get(kind)
    const question = known ?? { types, askedAtMs: 0, openCount: 0 }
    question.askedAtMs = performance.now()
    if (known === undefined) {
      if (this.#questions.size >= maxKinds) this.#forgetOldest()
      this.#questions.set(kind, question)
    }
    return question
  }

  #forgetOldest(): void {
    for (const [kind, { openCount }] of this.#questions) {
      if (openCount > 0) continue
      this.#questions.delete(kind)
      return
    }
  }
}
