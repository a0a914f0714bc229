/**
 * The line of writes that wait for a replica. Group commit: what comes while a group is on its way goes with the next one.
 *
 *   waiting ──a free connection──▶ sent: [EVALSHA, …, mark, WAIT] as one pipeline
 *      ▲                             ├─▶ own reply sound, and copies enough (replica-quorum.ts) by this very pipeline: kept
 *      │                             ├─▶ WAIT short, connection lost, no reply in time: refused, may have been carried out
 *      └──as text, not by its hash───┴── NOSCRIPT: a new primary does not have the script, nothing was carried out
 *
 * A WAIT is not sent apart from its writes: a new primary would count replicas for what died with the old one. The one
 * exception, for a group that waited too short a time for all, asks for the history of the server beside it.
 */
import { type ChainableCommander, type Cluster, Redis } from 'ioredis'
import { type RedisClient, recycle } from '../connect/connection.ts'
import { NotDurableError } from '../redis-errors.ts'
import type { Script, ScriptArgument } from '../script.ts'
import { CopiesWanted, voucherOf, type WaitFor, waitForOne } from './replica-quorum.ts'
import { isPrimary, markKeyOf, markLua } from './replication-marker.ts'

/** Each of `call` (a script to run) and `history` (one that the server must still have) may be absent. */
export interface Write {
  readonly key: string
  readonly call?: {
    readonly script: Script<unknown>
    readonly keys: readonly string[]
    readonly args: readonly ScriptArgument[]
  }
  readonly history?: string
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

export class WriteLine {
  readonly #free: RedisClient[]
  readonly #waiting: Waiting[] = []
  readonly #wanted: CopiesWanted
  #inFlight = 0
  #isDue = false

  /** @param clients whose connections nobody else waits for, since a WAIT holds them up */
  constructor(clients: readonly RedisClient[]) {
    this.#free = [...clients]
    this.#wanted = new CopiesWanted(clients)
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
        // Whatever is in flight comes here again.
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
    const vouch = voucherOf(client)
    const waitFor = this.#wanted.next(performance.now())
    const timer = setTimeout(() => recycle(client), answerWithinMs)
    try {
      replies = await exchange(client, group, waitFor)
      shortfall = await this.#shortfall(client, group, replies, waitFor, vouch)
    } catch (error) {
      for (const { reject } of group) reject(lost(error))
      return
    } finally {
      clearTimeout(timer)
    }
    const history = replies.at(-2)?.[1]
    const again: Waiting[] = []
    let at = 0
    for (const waiting of group) {
      const { write, asText, resolve, reject } = waiting
      const [error, value] = write.call === undefined ? [null] : (replies[at++] ?? [null])
      if (error !== null) {
        if (/^NOSCRIPT/.test(error.message) && !asText) again.push({ ...waiting, asText: true })
        else reject(explain(error, client))
      } else if (shortfall !== undefined) reject(shortfall)
      else if (write.history !== undefined && write.history !== history) reject(switched())
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
    vouch: () => Promise<boolean>,
  ): Promise<NotDurableError | undefined> {
    const [markError, history] = replies.at(-2) ?? [null]
    const [waitError, count] = replies.at(-1) ?? [null]
    const error = waitError ?? markError
    if (error !== null) return lost(error)
    let copies = Number(count)
    if (copies < waitFor.copies && waitFor.copies > 1) {
      this.#wanted.noteShort(performance.now())
      // None in the time that is given to all: one gets as long as it would have had.
      if (copies < 1) copies = await copiesLater(client, group, history)
    }
    return (await this.#wanted.suffice(copies, vouch)) ? undefined : tooFew(copies)
  }
}

/** How many replicas have what was written before, as long as this is the primary that it was written to, without a break. */
async function copiesLater(client: RedisClient, group: readonly Waiting[], history: unknown): Promise<number> {
  const [mark, wait] = await markAndWait(client.pipeline(), group, waitForOne, true)
  const isSame = mark?.[0] === null && mark[1] === history && isPrimary(String(history))
  return isSame && wait?.[0] === null ? Number(wait[1]) : 0
}

async function exchange(client: RedisClient, group: readonly Waiting[], waitFor: WaitFor): Promise<readonly Reply[]> {
  const pipeline = client.pipeline()
  for (const { write, asText } of group) {
    if (write.call === undefined) continue
    // Not by ioredis' own way to call a script: it would send one that is missing again, apart from this WAIT.
    const { script, keys, args } = write.call
    if (asText) pipeline.eval(script.lua, keys.length, ...keys, ...args)
    else pipeline.evalsha(script.sha, keys.length, ...keys, ...args)
  }
  const wantsHistory = waitFor.copies > 1 || group.some(({ write }) => write.history !== undefined)
  return await markAndWait(pipeline, group, waitFor, wantsHistory)
}

async function markAndWait(
  pipeline: ChainableCommander,
  group: readonly Waiting[],
  { copies, withinMs }: WaitFor,
  wantsHistory: boolean,
): Promise<readonly Reply[]> {
  pipeline.eval(markLua, 1, markKeyOf((group[0] as Waiting).write.key), wantsHistory ? '1' : '')
  pipeline.wait(copies, withinMs)
  return ((await pipeline.exec()) ?? []) as Reply[]
}

function tooFew(copies: number): NotDurableError {
  const why =
    copies < 1
      ? 'No second copy of Redis took the write in time'
      : 'One copy of Redis took the write, but the Sentinels are about to choose another primary'
  return new NotDurableError(`${why}; it may have been kept or not.`, { mayHaveHappened: true })
}

/** Another server, or the same one under another history: what was written there before may be gone. */
export const switched = (): NotDurableError =>
  new NotDurableError('The primary of Redis was switched meanwhile; the write may have been kept or not.', {
    mayHaveHappened: true,
  })

/** What Redis answered is passed on; what came of a lost connection nobody knows. */
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
