/**
 * The start role of a Redis, and why Sentinel may not promote it yet, from what Sentinels and other servers say. Pure.
 *
 * A server never starts as primary without asking: while it was away, another may have become primary. A primary that
 * comes back too early, or with less than the others have, overwrites acknowledged jobs in every server.
 */
import { failoverTimeoutMs, type Host, majorityOf } from './replication-group.ts'

/** What one Sentinel says; those that do not answer are left out. */
export interface SentinelAnswer {
  /** The host that it runs on. */
  readonly host: string
  /** The address that it names as primary. */
  readonly primary: string
  /** Grows with every failover; the higher one is the newer news. */
  readonly configEpoch: number
  readonly isFailingOver: boolean
}

/** What the Redis of another host says; those that do not answer are left out. */
export interface RedisAnswer {
  readonly host: string
  readonly role: 'primary' | 'replica'
  readonly hasData: boolean
  /** How far it has followed a primary since it was started; 0: it has only what it loaded from disk. */
  readonly offset: number
}

export interface Situation {
  readonly own: Host
  readonly hosts: readonly Host[]
  readonly sentinels: readonly SentinelAnswer[]
  /** Of the other hosts. */
  readonly servers: readonly RedisAnswer[]
  /** There is nothing in the data directory of this host. */
  readonly isEmpty: boolean
  readonly downAfterMs: number
  /** For how long this host has been named without being started. */
  readonly namedForMs: number
}

export type StartDecision =
  | { readonly act: 'primary'; readonly reason: string }
  | { readonly act: 'replica'; readonly of: Host; readonly reason: string }
  /** `wantsFailover`: Sentinel is to be asked for one, since none comes by itself. */
  | { readonly act: 'wait'; readonly isNamed: boolean; readonly wantsFailover: boolean; readonly reason: string }

/** From then on Sentinel has had the time to find out that the primary is down and to begin. */
const beginsWithinMs = (downAfterMs: number): number => downAfterMs + 3000
/** Then a failover has been tried, barred for a while, and tried again: no other server is fit for it. */
export const endsWithinMs = (downAfterMs: number): number =>
  beginsWithinMs(downAfterMs) + 2 * failoverTimeoutMs(downAfterMs) + 2000

export function decideStart(situation: Situation): StartDecision {
  const { own, hosts, sentinels } = situation
  const named = namedBy(situation)
  if (named === undefined) {
    const said = sentinels.map(({ host, primary }) => `${host} names ${nameOf(hosts, primary)}`)
    const needed = majorityOf(hosts.length)
    return wait(`${needed} Sentinels must agree on the primary: ${said.join(', ') || 'none answers'}`)
  }
  const host = hosts.find(({ address }) => address === named.primary)
  if (host === undefined) return wait(`the Sentinels name ${named.primary}, which is none of the hosts`)
  if (host.name !== own.name)
    return { act: 'replica', of: host, reason: `${named.by.join(' and ')} name ${host.name} as primary` }
  const newer = sentinels.find(({ primary, configEpoch }) => primary !== own.address && configEpoch > named.configEpoch)
  if (newer !== undefined)
    return wait(`${newer.host} knows of a newer primary, ${nameOf(hosts, newer.primary)}; the others are about to hear`)
  return asNamed(situation, named.by)
}

/** This host is named. May it serve, or is another about to become primary? */
function asNamed(situation: Situation, by: readonly string[]): StartDecision {
  const { hosts, sentinels, servers, isEmpty, downAfterMs, namedForMs } = situation
  const wantsFailover = namedForMs >= beginsWithinMs(downAfterMs)
  const hold = (reason: string): StartDecision => ({ act: 'wait', isNamed: true, wantsFailover, reason })

  const failingOver = sentinels.find(({ isFailingOver }) => isFailingOver)
  if (failingOver !== undefined)
    return { act: 'wait', isNamed: true, wantsFailover: false, reason: `${failingOver.host} is failing over` }

  const other = servers.find(({ role }) => role === 'primary')
  if (other !== undefined) return hold(`${other.host} already serves as primary; the Sentinels are about to say so`)

  const full = servers.find(({ hasData }) => hasData)
  if (isEmpty && full !== undefined)
    return hold(`this host has no data and ${full.host} has: serving would empty it. It has to become the primary`)
  // At the very first start all are empty; but one that does not answer may have data.
  if (isEmpty && servers.length + 1 < majorityOf(hosts.length))
    return hold('this host has no data, and no other server answers whether it has any')

  const live = servers.find(({ offset }) => offset > 0)
  if (live !== undefined && namedForMs < endsWithinMs(downAfterMs))
    return hold(`${live.host} has followed the primary until its end: a failover to it comes`)

  const why = live === undefined ? 'no other server is ahead of it' : 'no failover has come about'
  return { act: 'primary', reason: `${by.join(' and ')} name this host as primary, and ${why}` }
}

/** A server that runs as a replica and was started barred: Sentinel does not promote it (`replica-priority 0`). */
export interface BarredServer {
  /** The host that it was started to follow. */
  readonly primary: Host
  /** It had no data when it was started. */
  readonly wasEmpty: boolean
  readonly barredForMs: number
  /** Since it was started it has had all that a primary had, or is one. */
  readonly hasFollowed: boolean
  /** Of the other hosts. */
  readonly servers: readonly RedisAnswer[]
}

/** For so long a server that only has what it loaded from disk leaves the role to a primary that may have more. */
const leaveToPrimaryMs = 10_000
/** And for so long to a replica that surely has more. Then many failovers to that one have been tried. */
const leaveToReplicaMs = 120_000

/** Why Sentinel may not promote a server yet; undefined: it may. */
export function barOf({ primary, wasEmpty, barredForMs, hasFollowed, servers }: BarredServer): string | undefined {
  if (hasFollowed) return undefined
  // Promoted before, it would empty the others, however long they are away.
  if (wasEmpty) return 'its disk is empty: it has to copy a primary first'
  const live = servers.find(({ role, offset }) => role === 'replica' && offset > 0)
  if (live !== undefined && barredForMs < leaveToReplicaMs)
    return `${live.host} has followed the primary until its end: it is to take over`
  // After all servers were down, the primary alone is sure to have the newest data.
  if (barredForMs < leaveToPrimaryMs) return `${primary.name} may have newer data, and has 10 s to come back`
  return undefined
}

interface Named {
  readonly primary: string
  readonly by: string[]
  readonly configEpoch: number
}

/** The address that a majority of all Sentinels names. */
function namedBy({ hosts, sentinels }: Situation): Named | undefined {
  for (const { primary } of sentinels) {
    const agreeing = sentinels.filter(answer => answer.primary === primary)
    if (agreeing.length >= majorityOf(hosts.length)) {
      const configEpoch = Math.max(...agreeing.map(answer => answer.configEpoch))
      return { primary, by: agreeing.map(({ host }) => host), configEpoch }
    }
  }
  return undefined
}

const wait = (reason: string): StartDecision => ({ act: 'wait', isNamed: false, wantsFailover: false, reason })

const nameOf = (hosts: readonly Host[], address: string): string =>
  hosts.find(host => host.address === address)?.name ?? address
