/** What goes on at the claims of one queue on this node: who asks, and what is handed out. The watchdog looks at it. */
export class ClaimActivity {
  /** performance.now() of the latest question. */
  askedAtMs = Number.NEGATIVE_INFINITY
  /** Claims that have no answer yet. */
  openCount = 0
  /** Jobs handed out, ever: by claims, and along with completions. */
  claimedCount = 0

  /** A worker that may claim asks for jobs. */
  asked(): void {
    this.askedAtMs = performance.now()
  }

  /** The same, and it waits for the answer. */
  async during<T>(answer: () => Promise<T>): Promise<T> {
    this.asked()
    this.openCount += 1
    try {
      return await answer()
    } finally {
      this.openCount -= 1
    }
  }
}
