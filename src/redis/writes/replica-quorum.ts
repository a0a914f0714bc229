/**
 * The acknowledgement policy: how many replicas a group of writes waits for. One replica is not enough where another
 * one may be promoted: while a switch is under way the old primary and the replica that still follows it go on agreeing
 * with each other, and both copy the promoted one a moment later. So a write is kept when
 *
 *   all replicas have it: whichever is promoted has it too, and one that was promoted before answers no old primary;
 *   or one has it, and after its answer the Sentinels confirm the primary: no switch was under way by then, and in one
 *   that begins later the replica that has most is promoted.
 *
 * While a replica is away only the second can be; all are tried again every second.
 */
import { isCluster, type RedisClient, sentinelsOf } from '../connect/connection.ts'
import { primaryBehind } from '../connect/sentinel-connector.ts'

export interface WaitFor {
  readonly replicas: number
  readonly withinMs: number
}

/**
 * All replicas acknowledge within a millisecond or so; a stall of one is not worth a longer wait, since one will do.
 */
const allWithinMs = 250
/** One replica: more than this, and none is there. */
const oneWithinMs = 1000
const tryAllEveryMs = 1000

export class ReplicaQuorum {
  readonly #all: number
  #shortAt = Number.NEGATIVE_INFINITY

  /** @param clients those over which the writes go, all connected alike */
  constructor(clients: readonly RedisClient[]) {
    const sentinels = clients.flatMap(client => sentinelsOf(client) ?? [])
    for (const each of sentinels) each.openQuorumCheck()
    // As many hosts as Sentinels; a deployment with fewer servers than that always needs the quorum check.
    this.#all = Math.max(1, (sentinels[0]?.addressCount ?? 2) - 1)
  }

  /** What a group that is sent at this time waits for. */
  next(now: number): WaitFor {
    if (this.#all === 1 || now - this.#shortAt < tryAllEveryMs) return waitForOne
    return { replicas: this.#all, withinMs: allWithinMs }
  }

  /** A group that waited for all and got fewer: the next ones wait for one. */
  noteShort(now: number): void {
    this.#shortAt = now
  }

  /**
   * Whether a write on this many replicas is kept.
   * @param confirmsPrimary of quorumCheckOf(), made before the write was sent: the client may be connected elsewhere by
   * now
   */
  async suffice(replicas: number, confirmsPrimary: () => Promise<boolean>): Promise<boolean> {
    if (replicas < 1) return false
    return this.#all === 1 || replicas >= this.#all || (await confirmsPrimary())
  }
}

export const waitForOne: WaitFor = { replicas: 1, withinMs: oneWithinMs }

/** Asks the Sentinels, when called, about the server that this client is connected to now. */
export function quorumCheckOf(client: RedisClient): () => Promise<boolean> {
  const sentinels = sentinelsOf(client)
  const primary = isCluster(client) ? undefined : primaryBehind(client)
  return async () => sentinels !== undefined && primary !== undefined && (await sentinels.confirmsPrimary(primary))
}
