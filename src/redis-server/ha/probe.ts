/**
 * Questions to one Redis or Sentinel, each on a connection of its own that ends with it, in a given time. For the times
 * when it is not known who is there, and for commands that no node gives.
 */

import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { type Host, type ServerConfig, serverFiles, sidesOf, tlsName } from './replication-group.ts'
import type { RedisAnswer, SentinelAnswer } from './start-role.ts'

export interface Target {
  readonly address: string
  readonly port: number
  readonly username?: string
  readonly password?: string
  /** Over TLS, with a certificate of this authority (PEM; unset: one that the system knows) for this name. */
  readonly tls?: { readonly ca?: string; readonly name?: string }
}

/**
 * Connects, runs `use`, and disconnects.
 * @throws when there is no connection, `use` fails, or all of it takes longer than `withinMs`
 */
export async function ask<T>(target: Target, withinMs: number, use: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis({
    host: target.address,
    port: target.port,
    ...(target.username !== undefined && { username: target.username }),
    ...(target.password !== undefined && { password: target.password }),
    ...(target.tls && {
      tls: { servername: target.tls.name ?? tlsName, ...(target.tls.ca !== undefined && { ca: target.tls.ca }) },
    }),
    lazyConnect: true,
    connectTimeout: withinMs,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    enableReadyCheck: false,
    disableClientInfo: true,
  })
  let fault: Error | undefined
  client.on('error', (error: Error) => {
    fault ??= error
  })
  const late = new AbortController()
  try {
    const spoken = client.connect().then(() => use(client))
    spoken.catch(() => undefined) // it may lose the race, and fail later when we disconnect
    return await Promise.race([
      spoken,
      delay(withinMs, undefined, { signal: late.signal }).then(() => {
        throw new Error(`no answer from ${target.address}:${target.port} within ${withinMs} ms`)
      }),
    ])
  } catch (error) {
    // "Connection is closed" says less than why.
    throw fault ?? error
  } finally {
    late.abort()
    client.disconnect()
  }
}

/** Lists of name and value, as Sentinel replies, as a map. */
export function toMap(reply: unknown): Map<string, string> {
  const parts = Array.isArray(reply) ? reply.map(String) : []
  return new Map(parts.flatMap((name, at) => (at % 2 === 0 ? [[name, parts[at + 1] ?? ''] as const] : [])))
}

/** The lines of INFO as a map. */
export function parseInfo(text: string): Map<string, string> {
  const lines = text.split(/\r?\n/).filter(line => line.includes(':') && !line.startsWith('#'))
  return new Map(lines.map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]))
}

/** What a Redis and a Sentinel tell of themselves, as far as it matters for who may serve. */
export interface RedisInfo {
  readonly role: 'primary' | 'replica'
  /** Address of its primary, when it is a replica. */
  readonly follows: string | undefined
  readonly isLinked: boolean
  readonly isLoading: boolean
  readonly keyCount: number
  /** Its place in the stream of writes; 0: a replica that has not followed a primary since its start. */
  readonly offset: number
  readonly version: string
  /** Of a primary: its replicas that are in step or catching up. */
  readonly replicas: readonly { address: string; isOnline: boolean; offset: number; lagMs: number }[]
}

export interface SentinelInfo {
  readonly primary: string
  readonly port: number
  readonly configEpoch: number
  readonly isFailingOver: boolean
  /** Sentinel's words for the primary's state: `master`, `s_down`, `o_down`, … */
  readonly flags: readonly string[]
  readonly replicas: readonly { address: string; port: number; isFit: boolean }[]
  readonly sentinels: readonly { address: string; port: number }[]
  /** Undefined: enough Sentinels reach each other to fail over. Else why not. */
  readonly quorumFault: string | undefined
}

/** @throws when it does not answer in time */
export async function askRedisInfo(target: Target, withinMs: number): Promise<RedisInfo> {
  return readRedisInfo(await ask(target, withinMs, client => client.info()))
}

export function readRedisInfo(text: string): RedisInfo {
  const info = parseInfo(text)
  const isPrimary = info.get('role') === 'master'
  const keys = [...info]
    .filter(([name]) => /^db\d+$/.test(name))
    .map(([, value]) => Number(/keys=(\d+)/.exec(value)?.[1]))
  return {
    role: isPrimary ? 'primary' : 'replica',
    follows: info.get('master_host'),
    isLinked: info.get('master_link_status') === 'up',
    isLoading: info.get('loading') === '1',
    keyCount: keys.reduce((sum, count) => sum + count, 0),
    offset: isPrimary ? Number(info.get('master_repl_offset') ?? 0) : followedTo(info.get('slave_repl_offset')),
    version: info.get('redis_version') ?? '?',
    replicas: [...info].filter(([name]) => /^slave\d+$/.test(name)).map(([, value]) => readReplica(value)),
  }
}

/** Redis says 1 for none. Its master_repl_offset says less: Redis 8 takes it from the append-only file, too. */
function followedTo(offset: string | undefined): number {
  const place = Number(offset ?? 0)
  return place > 1 ? place : 0
}

function readReplica(line: string): RedisInfo['replicas'][number] {
  const fields = new Map(line.split(',').map(part => part.split('=') as [string, string]))
  return {
    address: fields.get('ip') ?? '',
    isOnline: fields.get('state') === 'online',
    offset: Number(fields.get('offset')),
    lagMs: Number(fields.get('lag')) * 1000,
  }
}

/** @throws when it does not answer in time, or watches nothing of this name */
export async function askSentinelInfo(target: Target, name: string, withinMs: number): Promise<SentinelInfo> {
  return await ask(target, withinMs, async client => {
    const sentinel = (...args: string[]): Promise<unknown> => client.call('SENTINEL', ...args)
    const [address, master, replicas, sentinels, quorumFault] = await Promise.all([
      sentinel('GET-MASTER-ADDR-BY-NAME', name) as Promise<[string, string] | null>,
      sentinel('MASTER', name).then(toMap),
      (sentinel('REPLICAS', name) as Promise<unknown[]>).then(all => all.map(toMap)),
      (sentinel('SENTINELS', name) as Promise<unknown[]>).then(all => all.map(toMap)),
      sentinel('CKQUORUM', name).then(
        () => undefined,
        (error: Error) => error.message,
      ),
    ])
    const flags = (master.get('flags') ?? '').split(',')
    return {
      // During a failover this is already the new one, which the fields of MASTER do not tell.
      primary: address?.[0] ?? '',
      port: Number(address?.[1]),
      configEpoch: Number(master.get('config-epoch')),
      isFailingOver: flags.includes('failover_in_progress'),
      flags,
      replicas: replicas.map(replica => ({
        address: replica.get('ip') ?? '',
        port: Number(replica.get('port')),
        isFit: replica.get('flags') === 'slave' && replica.get('slave-priority') !== '0',
      })),
      sentinels: sentinels.map(other => ({ address: other.get('ip') ?? '', port: Number(other.get('port')) })),
      quorumFault,
    }
  })
}

/** Where the Redis and the Sentinel of each host are, and how the operator gets in. */
export interface Targets {
  redis(host: Host): Target
  sentinel(host: Host): Target
}

/** As the user `operator`, with the certificate authority in the folder of this host. */
export async function openTargets(folder: string, config: ServerConfig): Promise<Targets> {
  const access = {
    ...{ username: 'operator', password: config.password },
    ...(config.tls && { tls: { ca: await readFile(serverFiles(folder).authority, 'utf8'), name: tlsName } }),
  }
  return {
    redis: ({ address }) => ({ address, port: config.port, ...access }),
    sentinel: ({ address }) => ({ address, port: config.sentinelPort, ...access }),
  }
}

/** Asks all servers and Sentinels that can know the start role of this host's Redis. */

/** For each answer, and all are asked at once. */
const answerMs = 500

export interface Survey {
  readonly sentinels: readonly SentinelAnswer[]
  /** Of the other hosts. */
  readonly servers: readonly RedisAnswer[]
  /** Who did not answer, and why. */
  readonly silent: readonly string[]
}

/** Takes 500 ms at most; never throws. */
export async function surveyGroup(config: ServerConfig, targets: Targets): Promise<Survey> {
  const silent: string[] = []
  const [sentinels, servers] = await Promise.all([
    Promise.all(
      config.hosts.map(async host => {
        const asked = askSentinelInfo(targets.sentinel(host), config.name, answerMs)
        const answers = await heard(`Sentinel of ${host.name}`, asked, silent)
        return answers.map(({ primary, configEpoch, isFailingOver }) => ({
          ...{ host: host.name, primary, configEpoch, isFailingOver },
        }))
      }),
    ),
    askOthers(config, targets, silent),
  ])
  return { sentinels: sentinels.flat(), servers, silent }
}

/** Asks the Redis of each other host. Takes 500 ms at most; never throws. */
export async function askOthers(config: ServerConfig, targets: Targets, silent: string[] = []): Promise<RedisAnswer[]> {
  const answers = sidesOf(config).others.map(async host => {
    const infos = await heard(`Redis of ${host.name}`, askRedisInfo(targets.redis(host), answerMs), silent)
    return infos.map(({ role, keyCount, isLoading, offset }) => ({
      ...{ host: host.name, role, hasData: isLoading || keyCount > 0, offset: role === 'replica' ? offset : 0 },
    }))
  })
  return (await Promise.all(answers)).flat()
}

async function heard<T>(who: string, answer: Promise<T>, silent: string[]): Promise<T[]> {
  try {
    return [await answer]
  } catch (error) {
    silent.push(`${who}: ${(error as Error).message}`)
    return []
  }
}
