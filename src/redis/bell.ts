/**
 * Wakes whoever waits for something to happen, on this node at once and on the others by Redis pub/sub.
 * A ring may get lost (Redis away): a waiter always has a time limit and looks for itself when it passes.
 */
import { EventEmitter } from 'node:events'

/** What the bell needs of Redis; a publish that fails means that the other nodes find out for themselves, later. */
export type Publish = (message: string) => Promise<unknown>

export class Bell {
  readonly #emitter = new EventEmitter().setMaxListeners(0)
  readonly #outgoing = new Set<string>()
  #publish: Publish | undefined
  #sending = false

  /** From now on rings also reach the other nodes. */
  connect(publish: Publish): void {
    this.#publish = publish
  }

  /** Something happened on `topic`: wakes the waiters here now, elsewhere soon. Rings that come together are sent once. */
  ring(topic: string): void {
    this.#emitter.emit(topic)
    if (this.#publish === undefined) return
    this.#outgoing.add(topic)
    if (!this.#sending) setImmediate(() => void this.#send())
    this.#sending = true
  }

  /** A message that another node published. */
  receive(message: string): void {
    for (const topic of message.split('\n')) this.#emitter.emit(topic)
  }

  /** Calls `listener` on every ring of `topic`; the returned function ends that. */
  on(topic: string, listener: () => void): () => void {
    this.#emitter.on(topic, listener)
    return () => {
      this.#emitter.off(topic, listener)
    }
  }

  async #send(): Promise<void> {
    while (this.#outgoing.size > 0) {
      const message = [...this.#outgoing].join('\n')
      this.#outgoing.clear()
      await this.#publish?.(message).catch(() => undefined)
    }
    this.#sending = false
  }
}
