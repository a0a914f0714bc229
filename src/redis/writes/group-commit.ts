/**
 * Group commit of writes that wait for a replica: what comes while a group is on its way goes with the next group.
 *
 *   waiting ──a free connection──▶ sent: [EVALSHA, …, marker, WAIT] as one pipeline
 *      ▲                             ├─▶ own reply good, and replicas enough (replica-quorum.ts) in this pipeline: kept
 *      │                             ├─▶ WAIT short, connection lost, no reply in time: refused, may have been carried out
 *      └──as text, not by its hash───┴── NOSCRIPT: a new primary does not have the script, nothing was carried out
 *
 * A WAIT travels with its writes: a new primary would count replicas for what died with the old one. The one exception,
 * for a group that waited too short a time for all replicas, asks for the replication id of the server with it.
 */
import { type ChainableCommander, type Cluster, Redis } from 'ioredis'
import { type RedisClient, reconnect } from '../connect/connection.ts'
import { NotDurableError } from '../redis-errors.ts'
import type { Script, ScriptArgument } from '../script.ts'
import { quorumCheckOf, ReplicaQuorum, type WaitFor, waitForOne } from './replica-quorum.ts'
import { isPrimary, markerKeyOf, markerLua } from './replication-marker.ts'

/** Each of `call` (a script to run) and `replicationId` (one that the server must still have) may be absent. */
export interface Write {
  readonly key: string
  readonly call?: {
    readonly script: Script<unknown>
    readonly keys: readonly string[]
    readonly args: readonly ScriptArgument[]
  }
  readonly replicationId?: string
}

interface Waiting {
  readonly write: Write
  readonly since: number
  readonly asText: boolean
  readonly resolve: (reply: unknown) => void
  readonly reject: (error: unknown) => void
}

type Reply = [error: Error | null, value?: unknown]

/** A pipeline without an answer for this long is given up, and its connection with it. */
const answerWithinMs = 3000
/** A write that was not sent after this long is refused. */
const sendWithinMs = 3000
const maxGroup = 64

export class GroupCommit {
  readonly #free: RedisClient[]
  readonly #waiting: Waiting[] = []
  readonly #policy: ReplicaQuorum
  #inFlight = 0
  #isDue = false

  /** @param clients whose connections have no other user, since a WAIT blocks them */
  constructor(clients: readonly RedisClient[]) {
    this.#free = [...clients]
    this.#policy = new ReplicaQuorum(clients)
  }

  /**
   * @returns the reply of the script, once a replica has all that was written by then
   * @throws NotDurableError; the error of the script
   */
  push(write: Write): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ write, since: performance.now(), asText: false, resolve, reject })
      if (this.#isDue) return
      this.#isDue = true
      setImmediate(() => {
        this.#isDue = false
        this.#send()
      })
    })
  }

  #send(): void {
    while (this.#waiting.length > 0) {
      const index = this.#free.findIndex(({ status }) => status === 'ready')
      if (index < 0) {
        // Each group in flight comes here again when it ends.
        if (this.#inFlight === 0)
          this.#refuse(this.#waiting.splice(0), 'No primary of Redis is connected; nothing was written.')
        return
      }
      const group = this.#takeGroup()
      if (group.length === 0) return
      const [client] = this.#free.splice(index, 1) as [RedisClient]
      this.#inFlight += 1
      void this.#commit(client, group).finally(() => {
        this.#inFlight -= 1
        this.#free.push(client)
        this.#send()
      })
    }
  }

  #takeGroup(): Waiting[] {
    const earliest = performance.now() - sendWithinMs
    const late = this.#waiting.findIndex(({ since }) => since >= earliest)
    this.#refuse(
      this.#waiting.splice(0, late < 0 ? this.#waiting.length : late),
      'Redis took too long over what came before; nothing was written.',
    )
    return this.#waiting.splice(0, maxGroup)
  }

  #refuse(group: readonly Waiting[], message: string): void {
    for (const { reject } of group) reject(new NotDurableError(message, { mayHaveHappened: false }))
  }

  /** Sends a group and answers each of it. Never throws. */
  async #commit(client: RedisClient, group: readonly Waiting[]): Promise<void> {
    let replies: readonly Reply[]
    let shortfall: NotDurableError | undefined
    const confirmsPrimary = quorumCheckOf(client)
    const waitFor = this.#policy.next(performance.now())
    const timer = setTimeout(() => reconnect(client), answerWithinMs)
    try {
      replies = await exchange(client, group, waitFor)
      shortfall = await this.#shortfall(client, group, replies, waitFor, confirmsPrimary)
    } catch (error) {
      for (const { reject } of group) reject(lost(error))
      return
    } finally {
      clearTimeout(timer)
    }
    const replicationId = replies.at(-2)?.[1]
    const again: Waiting[] = []
    let at = 0
    for (const waiting of group) {
      const { write, asText, resolve, reject } = waiting
      const [error, value] = write.call === undefined ? [null] : (replies[at++] ?? [null])
      if (error !== null) {
        if (/^NOSCRIPT/.test(error.message) && !asText) again.push({ ...waiting, asText: true })
        else reject(explain(error, client))
      } else if (shortfall !== undefined) reject(shortfall)
      else if (write.replicationId !== undefined && write.replicationId !== replicationId) reject(switched())
      else resolve(value)
    }
    this.#waiting.unshift(...again)
  }

  /** Why too few have the group; undefined when enough do. */
  async #shortfall(
    client: RedisClient,
    group: readonly Waiting[],
    replies: readonly Reply[],
    waitFor: WaitFor,
    confirmsPrimary: () => Promise<boolean>,
  ): Promise<NotDurableError | undefined> {
    const [markerError, replicationId] = replies.at(-2) ?? [null]
    const [waitError, count] = replies.at(-1) ?? [null]
    const error = waitError ?? markerError
    if (error !== null) return lost(error)
    let replicas = Number(count)
    if (replicas < waitFor.replicas && waitFor.replicas > 1) {
      this.#policy.noteShort(performance.now())
      // None in the time that is given to all: one gets as long as it would have had.
      if (replicas < 1) replicas = await replicasLater(client, group, replicationId)
    }
    return (await this.#policy.suffice(replicas, confirmsPrimary)) ? undefined : tooFew(replicas)
  }
}

/**
 * How many replicas have what was written before, as long as this is the primary that it was written to, without a
 * break.
 */
async function replicasLater(client: RedisClient, group: readonly Waiting[], replicationId: unknown): Promise<number> {
  const [marker, wait] = await markerAndWait(client.pipeline(), group, waitForOne, true)
  const isSame = marker?.[0] === null && marker[1] === replicationId && isPrimary(String(replicationId))
  return isSame && wait?.[0] === null ? Number(wait[1]) : 0
}

async function exchange(client: RedisClient, group: readonly Waiting[], waitFor: WaitFor): Promise<readonly Reply[]> {
  const pipeline = client.pipeline()
  for (const { write, asText } of group) {
    if (write.call === undefined) continue
    // Not by ioredis' own way to call a script: it would send a missing one again, without this WAIT.
    const { script, keys, args } = write.call
    if (asText) pipeline.eval(script.lua, keys.length, ...keys, ...args)
    else pipeline.evalsha(script.sha, keys.length, ...keys, ...args)
  }
  const wantsId = waitFor.replicas > 1 || group.some(({ write }) => write.replicationId !== undefined)
  return await markerAndWait(pipeline, group, waitFor, wantsId)
}

async function markerAndWait(
  pipeline: ChainableCommander,
  group: readonly Waiting[],
  { replicas, withinMs }: WaitFor,
  wantsId: boolean,
): Promise<readonly Reply[]> {
  pipeline.eval(markerLua, 1, markerKeyOf((group[0] as Waiting).write.key), wantsId ? '1' : '')
  pipeline.wait(replicas, withinMs)
  return ((await pipeline.exec()) ?? []) as Reply[]
}

function tooFew(replicas: number): NotDurableError {
  const why =
    replicas < 1
      ? 'No second Redis server took the write in time'
      : 'One replica of Redis took the write, but the Sentinels are about to choose another primary'
  return new NotDurableError(`${why}; it may have been kept or not.`, { mayHaveHappened: true })
}

/** Another server, or the same one under another replication id: what was written there before may be gone. */
export const switched = (): NotDurableError =>
  new NotDurableError('The primary of Redis was switched meanwhile; the write may have been kept or not.', {
    mayHaveHappened: true,
  })

/** An answer of Redis is passed on; the outcome on a lost connection is unknown. */
function explain(error: Error, client: RedisClient): Error {
  if (/^(MOVED|ASK) /.test(error.message)) {
    // In a pipeline with a WAIT ioredis does not follow it: its map of the Cluster is old.
    if (!(client instanceof Redis)) (client as Cluster).refreshSlotsCache()
    return new NotDurableError('The Redis Cluster is moving these keys; nothing was written.', {
      mayHaveHappened: false,
      cause: error,
    })
  }
  return error.name === 'ReplyError' ? error : lost(error)
}

const lost = (error: unknown): NotDurableError =>
  error instanceof Error && /^(Stream isn't writeable|Cluster isn't ready)/.test(error.message)
    ? new NotDurableError('The primary of Redis is not connected; nothing was written.', {
        mayHaveHappened: false,
        cause: error,
      })
    : new NotDurableError('Redis did not confirm the write; it may have been kept or not.', {
        mayHaveHappened: true,
        cause: error,
      })
