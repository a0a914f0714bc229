/** Opens the writes of a node, at the durability that it works with. */
import type { RedisTarget } from './address.ts'
import { closeRedis, connectRedis, isCluster, type RedisClient } from './connection.ts'
import { type Durability, type DurableWrites, LocalWrites } from './durable-writes.ts'
import { ReplicatedWrites } from './replicated-writes.ts'
import type { RedisLog } from './supervise.ts'

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
      connections.push(await connectRedis({ ...target, role: 'writes', log }))
  } catch (error) {
    await close()
    throw error
  }
  if (!isCluster(commands) && /^connected_slaves:0/m.test(await commands.info('replication')))
    log.warn(
      'no replica follows Redis now: nothing will be acknowledged until one does (MUSTER_DURABILITY is replicated)',
    )
  return { writes: new ReplicatedWrites({ commands, connections }), close }
}
