/**
 * Writes that are acknowledged once a second server has them. They travel over connections of their own, two of them,
 * so that a second group is on its way while the first one waits; in a Redis Cluster each hash tag has its group
 * commit, since a WAIT is answered by the server of the keys before it.
 */

import type { RedisTarget } from '../connect/address.ts'
import { closeRedis, connectionEpoch, connectRedis, isCluster, type RedisClient } from '../connect/connection.ts'
import type { RedisLog } from '../connect/supervise.ts'
import { readInfo } from '../inspect/info.ts'
import { hashTagOf } from '../keys.ts'
import type { Script, ScriptArgument } from '../script.ts'
import { type Durability, type DurableWrites, LocalWrites } from './durable-writes.ts'
import { GroupCommit, switched } from './group-commit.ts'
import { isPrimary, replicationIdOf } from './replication-marker.ts'

export interface ReplicatedWritesOptions {
  /** The connection for commands, over which what is to be confirmed runs. */
  readonly commands: RedisClient
  /** Connections of the purpose `writes`; the caller closes them. */
  readonly connections: readonly RedisClient[]
}

export class ReplicatedWrites implements DurableWrites {
  readonly reaches = 'replicated'
  readonly #options: ReplicatedWritesOptions
  readonly #groupCommits = new Map<string, GroupCommit>()

  constructor(options: ReplicatedWritesOptions) {
    this.#options = options
  }

  async run<Reply>(
    script: Script<Reply>,
    keys: readonly string[],
    args: readonly ScriptArgument[] = [],
  ): Promise<Reply> {
    const key = keys[0] as string
    return (await this.#groupCommitOf(key).push({ key, call: { script, keys, args } })) as Reply
  }

  /**
   * The operation ran on one server if its connection is still the one that told its replication id before. That server
   * has been primary all the while if it still has that id when a marker behind the operation reaches a replica.
   */
  async confirm<T>(key: string, operation: () => Promise<T>): Promise<T> {
    const { commands } = this.#options
    const epoch = connectionEpoch(commands)
    const replicationId = await replicationIdOf(commands, key)
    const result = await operation()
    if (connectionEpoch(commands) !== epoch || !isPrimary(replicationId)) throw switched()
    await this.#groupCommitOf(key).push({ key, replicationId })
    return result
  }

  #groupCommitOf(key: string): GroupCommit {
    const name = isCluster(this.#options.commands) ? hashTagOf(key) : ''
    let groupCommit = this.#groupCommits.get(name)
    if (groupCommit === undefined) {
      groupCommit = new GroupCommit(this.#options.connections)
      this.#groupCommits.set(name, groupCommit)
    }
    return groupCommit
  }
}

/** Opens the writes of a node, at the durability that it works with. */
export interface OpenWrites {
  readonly writes: DurableWrites
  /** Ends the connections; what is on its way is refused. */
  close(): Promise<void>
}

/** A second group is on its way while the first waits for a replica. */
const connectionCount = 2

/**
 * @param commands the connection for commands, over which what is to be confirmed runs; it stays the caller's
 * @throws StartupError when Redis does not let us in, or is not ready in time
 */
export async function openWrites(
  durability: Durability,
  target: RedisTarget,
  commands: RedisClient,
  log: RedisLog,
): Promise<OpenWrites> {
  if (durability === 'local') return { writes: new LocalWrites(commands), close: async () => undefined }
  const connections: RedisClient[] = []
  const close = async (): Promise<void> => void (await Promise.all(connections.map(closeRedis)))
  try {
    while (connections.length < connectionCount)
      connections.push(await connectRedis({ ...target, purpose: 'writes', log }))
  } catch (error) {
    await close()
    throw error
  }
  if (!isCluster(commands) && readInfo(await commands.info('replication')).replicaCount === 0)
    log.warn(
      'no replica follows Redis now: nothing will be acknowledged until one does (MUSTER_DURABILITY is replicated)',
    )
  return { writes: new ReplicatedWrites({ commands, connections }), close }
}
