/**
 * Wakes waiters: those of this node at once, those of other nodes by Redis pub/sub.
 * A notification may get lost (Redis away): a waiter always has a time limit and looks for itself when it passes.
 */
import { randomUUID } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'

/** What the notifier needs of Redis; a publish that fails means that the other nodes find out for themselves, later. */
export type Publish = (message: string) => Promise<unknown>

/** Notifications within this time of the last message go out together: a node under load says so at most so often. */
const gatherMs = 5

export class Notifier {
  /** At the head of every message, so that a node passes over its own. */
  readonly #id = randomUUID()
  readonly #emitter = new EventEmitter().setMaxListeners(0)
  readonly #outgoing = new Set<string>()
  #publish: Publish | undefined
  #sending = false

  /** From now on notifications also reach the other nodes. */
  connect(publish: Publish): void {
    this.#publish = publish
  }

  /**
   * Something happened on `topic`: wakes the waiters here now, elsewhere soon. Notifications that come together are sent once.
   */
  notify(topic: string): void {
    this.#emitter.emit(topic)
    if (this.#publish === undefined) return
    this.#outgoing.add(topic)
    if (!this.#sending) setImmediate(() => void this.#send())
    this.#sending = true
  }

  /** A message that another node published. */
  receive(message: string): void {
    const [sender, ...topics] = message.split('\n')
    if (sender === this.#id) return
    for (const topic of topics) this.#emitter.emit(topic)
  }

  /** Calls `listener` on every notification of `topic`; the returned function ends that. */
  on(topic: string, listener: () => void): () => void {
    this.#emitter.on(topic, listener)
    return () => {
      this.#emitter.off(topic, listener)
    }
  }

  async #send(): Promise<void> {
    while (this.#outgoing.size > 0) {
      const message = [this.#id, ...this.#outgoing].join('\n')
      this.#outgoing.clear()
      await this.#publish?.(message).catch(() => undefined)
      await delay(gatherMs)
    }
    this.#sending = false
  }
}
