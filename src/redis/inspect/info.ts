/** What INFO says of a Redis, read once into typed fields; and when a replica counts as in sync. */

export interface RedisInfo {
  readonly role: 'primary' | 'replica'
  /** '?' when it is not in the text: a section of INFO has its own fields only. */
  readonly version: string
  readonly isCluster: boolean
  readonly isLoading: boolean
  readonly keyCount: number
  /** Its place in the stream of writes; 0: a replica that has not followed a primary since its start. */
  readonly offset: number
  /** Of a replica: its primary, and how it follows. */
  readonly follows: { readonly address: string; readonly port: string } | undefined
  readonly isLinked: boolean
  readonly isSyncing: boolean
  /** Since a replica last heard of its primary. */
  readonly silentMs: number
  /** Of a primary: its replicas that are in sync or catching up. */
  readonly replicas: readonly ReplicaInfo[]
  /** Also where a managed service hides the list. */
  readonly replicaCount: number
  readonly memory: MemoryInfo
  /** Undefined: a managed service may hide it. */
  readonly evictionPolicy: string | undefined
  readonly keepsAppendOnlyFile: boolean
  /** The last writes to disk that failed, as `aof_last_write_status is err`. */
  readonly fileFaults: readonly string[]
}

export interface ReplicaInfo {
  readonly address: string
  readonly isOnline: boolean
  readonly offset: number
  /** Since the primary last heard of it, in whole seconds. */
  readonly lagMs: number
}

/** In bytes. */
export interface MemoryInfo {
  readonly used: number
  /** What counts against the limit: `used` without the buffers of replicas and of the append-only file. */
  readonly counted: number
  /** 0: none. */
  readonly limit: number
  readonly system: number
}

export function readInfo(text: string): RedisInfo {
  const lines = text.split(/\r?\n/).filter(line => line.includes(':') && !line.startsWith('#'))
  const fields = new Map(lines.map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]))
  const number = (name: string): number => Number(fields.get(name) ?? 0)
  const named = (pattern: RegExp): string[] =>
    [...fields].filter(([name]) => pattern.test(name)).map(([, value]) => value)
  const replicas = named(/^slave\d+$/).map(readReplica)
  const isReplica = fields.get('role') === 'slave'
  const statuses = ['aof_last_write_status', 'aof_last_bgrewrite_status', 'rdb_last_bgsave_status']
  return {
    role: isReplica ? 'replica' : 'primary',
    version: fields.get('redis_version') ?? '?',
    isCluster: fields.get('redis_mode') === 'cluster' || fields.get('cluster_enabled') === '1',
    isLoading: fields.get('loading') === '1',
    keyCount: named(/^db\d+$/).reduce((sum, value) => sum + Number(/keys=(\d+)/.exec(value)?.[1]), 0),
    offset: isReplica ? followedTo(number('slave_repl_offset')) : number('master_repl_offset'),
    follows: isReplica
      ? { address: fields.get('master_host') ?? '?', port: fields.get('master_port') ?? '?' }
      : undefined,
    isLinked: fields.get('master_link_status') === 'up',
    isSyncing: fields.get('master_sync_in_progress') === '1',
    silentMs: number('master_last_io_seconds_ago') * 1000,
    replicas,
    replicaCount: Number(fields.get('connected_slaves') ?? replicas.length),
    memory: {
      used: number('used_memory'),
      counted: number('used_memory') - number('mem_not_counted_for_evict'),
      limit: number('maxmemory'),
      system: number('total_system_memory'),
    },
    evictionPolicy: fields.get('maxmemory_policy'),
    keepsAppendOnlyFile: fields.get('aof_enabled') === '1',
    fileFaults: statuses
      .filter(name => (fields.get(name) ?? 'ok') !== 'ok')
      .map(name => `${name} is ${fields.get(name)}`),
  }
}

/** Redis says 1 for none. Its master_repl_offset says less: Redis 8 takes it from the append-only file, too. */
const followedTo = (offset: number): number => (offset > 1 ? offset : 0)

function readReplica(line: string): ReplicaInfo {
  const fields = new Map(line.split(',').map(part => part.split('=') as [string, string]))
  return {
    address: fields.get('ip') ?? '',
    isOnline: fields.get('state') === 'online',
    offset: Number(fields.get('offset')),
    lagMs: Number(fields.get('lag')) * 1000,
  }
}

/** A replica is in sync when its primary hears of it, as each second, within this: `min-replicas-max-lag`. */
export const maxLagMs = 2000

/** Whether a replica may take over, as its primary sees it. A lag of -1 s is unknown. */
export const isInSync = ({ isOnline, lagMs }: Pick<ReplicaInfo, 'isOnline' | 'lagMs'>): boolean =>
  isOnline && lagMs >= 0 && lagMs <= maxLagMs

/** How many replicas of this primary are in sync. */
export const countInSync = ({ replicas }: RedisInfo): number => replicas.filter(isInSync).length
