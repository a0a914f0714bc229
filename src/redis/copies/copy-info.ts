/** What a Redis and a Sentinel tell of themselves, as far as it matters for who may serve. */
import { ask, parseInfo, type Target, toMap } from './ask.ts'

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
