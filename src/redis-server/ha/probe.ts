/**
 * Questions to one Redis or Sentinel, each on a connection of its own that ends with it, in a given time. For the times
 * when it is not known who is there, and for commands that no node gives.
 */

import { readFile } from 'node:fs/promises'
import type { Redis } from 'ioredis'
import { askOnce, toMap } from '../../redis/connect/ask-once.ts'
import { type RedisInfo, readInfo } from '../../redis/inspect/info.ts'
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

/** @throws when there is no connection, `use` fails, or all of it takes longer than `withinMs` */
export async function ask<T>(target: Target, withinMs: number, use: (client: Redis) => Promise<T>): Promise<T> {
  const { address, port, username, password, tls } = target
  const options = {
    ...{ host: address, port },
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    ...(tls && { tls: { servername: tls.name ?? tlsName, ...(tls.ca !== undefined && { ca: tls.ca }) } }),
  }
  return await askOnce(options, withinMs, use)
}

/** What a Sentinel says, as far as it matters for who may serve. */
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
  return readInfo(await ask(target, withinMs, client => client.info()))
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
