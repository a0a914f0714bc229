/**
 * Writes that are acknowledged only once they are kept:
 *
 *   local        in the primary and, as it is set up, in its append-only file
 *   replicated   in the memory of a second server too, so that the loss of either takes nothing back
 *
 * What tells a client, a worker or the fleet "this is so" goes through here, and so does every read that such an
 * answer rests on: what it saw is then kept as well. Claims and heartbeats do not: a claim that a failover forgets
 * costs a second run of its job (the first one's completion is refused by its token), and a heartbeat comes again.
 * Neither do notes that only delay something when they are lost: leases that a node returns, signs of lost workers, the
 * journal.
 */
import type { RedisClient } from '../connect/connection.ts'
import type { Script, ScriptArgument } from '../script.ts'

export const durabilities = ['replicated', 'local'] as const
export type Durability = (typeof durabilities)[number]

export interface DurableWrites {
  /** What a write has reached when it resolves. */
  readonly reaches: Durability
  /**
   * Runs a script, whose keys share a hash tag; resolves with its reply once its effect, and all that it saw, is kept.
   * @throws NotDurableError when that did not come about in time; it may have been carried out
   */
  run<Reply>(script: Script<Reply>, keys: readonly string[], args?: readonly ScriptArgument[]): Promise<Reply>
  /**
   * Runs an operation over the node's connection for commands (a method of BullMQ, say); resolves once all that it
   * wrote and saw is kept. Costs two more round trips: for what is rare.
   * @param key one of the keys that it works on
   * @throws NotDurableError likewise; also the errors of the operation
   */
  confirm<T>(key: string, operation: () => Promise<T>): Promise<T>
}

/** Writes that the primary keeps by itself. */
export class LocalWrites implements DurableWrites {
  readonly reaches = 'local'
  readonly #redis: RedisClient

  constructor(redis: RedisClient) {
    this.#redis = redis
  }

  run<Reply>(script: Script<Reply>, keys: readonly string[], args: readonly ScriptArgument[] = []): Promise<Reply> {
    return script.run(this.#redis, keys, args)
  }

  confirm<T>(_key: string, operation: () => Promise<T>): Promise<T> {
    return operation()
  }
}
