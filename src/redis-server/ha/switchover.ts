/**
 * The switchover: moves the role of primary without losing an acknowledged write: writes stop, the replicas catch up,
 * and only then does Sentinel fail over. A bare SENTINEL FAILOVER lets the old primary go on for a second, and what it
 * acknowledges together with a replica that is about to follow another is lost.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import { readInfo } from '../../redis/inspect/info.ts'
import { ask, askSentinelInfo, type SentinelInfo, type Target } from './probe.ts'
import { majorityOf } from './replication-group.ts'

export interface SwitchoverOptions {
  /** The Redis of the host that gives up the role. */
  readonly redis: Target
  /** All Sentinels, that of the same host first. */
  readonly sentinels: readonly Target[]
  /** What Sentinel calls the whole. */
  readonly name: string
  readonly log: Pick<Logger, 'info' | 'warn'>
  /** For all of it (default 10,000). */
  readonly withinMs?: number
}

export type SwitchoverOutcome =
  | { readonly outcome: 'replica' }
  | { readonly outcome: 'moved'; readonly to: string }
  | { readonly outcome: 'failed'; readonly reason: string }

const callMs = 1000
const catchUpMs = 3000
const quietWithinMs = 5000
/** More replicas than there ever are: the primary refuses every write, and Sentinel still hears it. */
const noWrites = '1000'

/** Moves the role if this Redis has it. Never throws; after a failure the primary takes writes again. */
export async function switchover({
  redis,
  sentinels,
  name,
  log,
  withinMs = 10_000,
}: SwitchoverOptions): Promise<SwitchoverOutcome> {
  const deadlineMs = Date.now() + withinMs
  try {
    return await ask(redis, withinMs + quietWithinMs + 4 * callMs, async client => {
      const state = readInfo(await client.info())
      if (state.role === 'replica') return { outcome: 'replica' }
      if (!state.replicas.some(({ isOnline }) => isOnline)) return failed('no replica is in sync')
      log.info('switchover: another host becomes primary')
      const asBefore = await readMinReplicas(client)
      await client.config('SET', 'min-replicas-to-write', noWrites)
      try {
        if (!(await caughtUp(client))) return failed('no replica has caught up')
        const to = await failOver(sentinels, name, redis.address, deadlineMs)
        if (to === undefined) {
          // A failover under way would undo what this primary acknowledged meanwhile.
          await untilQuiet(sentinels, name)
          return failed('Sentinel did not fail over in time')
        }
        // Sentinel would say so only 8 s later; and clients that still are here learn that they are wrong.
        await client.replicaof(to.primary, to.port)
        await untilKnown(sentinels, name, to.primary, deadlineMs)
        return { outcome: 'moved', to: to.primary }
      } finally {
        await client.config('SET', 'min-replicas-to-write', asBefore)
      }
    })
  } catch (error) {
    return failed((error as Error).message)
  }
}

const failed = (reason: string): SwitchoverOutcome => ({ outcome: 'failed', reason })

async function readMinReplicas(client: Redis): Promise<string> {
  const [, value] = (await client.config('GET', 'min-replicas-to-write')) as string[]
  return value === undefined || value === noWrites ? '1' : value
}

/** All replicas that are online have all that was written; after 3 s it is enough if one has. */
async function caughtUp(client: Redis): Promise<boolean> {
  const lastWrite = readInfo(await client.info('replication')).offset
  const deadlineMs = Date.now() + catchUpMs
  for (;;) {
    const replicas = readInfo(await client.info('replication')).replicas.filter(({ isOnline }) => isOnline)
    const inStep = replicas.filter(({ offset }) => offset >= lastWrite)
    if (inStep.length > 0 && inStep.length === replicas.length) return true
    if (Date.now() > deadlineMs) return inStep.length > 0
    await delay(50)
  }
}

/** Asks one Sentinel after the other, until one of them names another primary. */
async function failOver(
  sentinels: readonly Target[],
  name: string,
  from: string,
  deadlineMs: number,
): Promise<SentinelInfo | undefined> {
  for (let at = 0; Date.now() < deadlineMs; at++) {
    const sentinel = sentinels[at % sentinels.length] as Target
    // A refusal (one is in progress, no replica is fit yet) is answered by looking again.
    await ask(sentinel, callMs, client => client.call('SENTINEL', 'FAILOVER', name)).catch(() => undefined)
    const triedUntilMs = Math.min(deadlineMs, Date.now() + 5000)
    while (Date.now() < triedUntilMs) {
      const answers = await askAll(sentinels, name)
      const moved = answers.find(({ primary }) => primary !== '' && primary !== from)
      if (moved !== undefined) return moved
      if (!answers.some(({ isFailingOver }) => isFailingOver)) break
      await delay(100)
    }
    await delay(200)
  }
  return undefined
}

/**
 * Until a majority names the new primary and no Sentinel is failing over: then the change survives the loss of one
 * host.
 */
async function untilKnown(
  sentinels: readonly Target[],
  name: string,
  primary: string,
  deadlineMs: number,
): Promise<void> {
  while (Date.now() < deadlineMs) {
    const answers = await askAll(sentinels, name)
    const knowing = answers.filter(answer => answer.primary === primary)
    if (knowing.length >= majorityOf(sentinels.length) && !answers.some(({ isFailingOver }) => isFailingOver)) return
    await delay(100)
  }
}

async function untilQuiet(sentinels: readonly Target[], name: string): Promise<void> {
  const deadlineMs = Date.now() + quietWithinMs
  while (Date.now() < deadlineMs && (await askAll(sentinels, name)).some(({ isFailingOver }) => isFailingOver))
    await delay(100)
}

async function askAll(sentinels: readonly Target[], name: string): Promise<SentinelInfo[]> {
  const answers = await Promise.all(
    sentinels.map(sentinel => askSentinelInfo(sentinel, name, callMs).catch(() => undefined)),
  )
  return answers.filter(answer => answer !== undefined)
}
