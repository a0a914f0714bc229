/** How a client that knows all nodes chooses one: stays with the one that answers, moves on to the next when it does not. */
export class NodeChoice {
  readonly #urls: readonly string[]
  readonly #first: number
  #current: number

  constructor(urls: readonly string[], first: number) {
    this.#urls = urls
    this.#first = first % urls.length
    this.#current = this.#first
  }

  get url(): string {
    return this.#urls[this.#current] as string
  }

  /** Calls that failed at the same node move on together. */
  moveOnFrom(url: string): void {
    if (this.url === url) this.#current = (this.#current + 1) % this.#urls.length
  }

  /** Back to where it began, so that clients are spread over the nodes again. */
  reset(): void {
    this.#current = this.#first
  }
}
