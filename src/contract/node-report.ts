/** What a node tells of itself at `GET /health/checks`; `muster doctor` reads it. */
import { type Static, Type } from 'typebox'

export const NodeReport = Type.Object(
  {
    nodeId: Type.String({ description: 'Another one after each start' }),
    host: Type.String(),
    version: Type.String(),
    now: Type.String({ description: 'ISO 8601, by the clock of the node' }),
    uptimeMs: Type.Integer({ minimum: 0 }),
    isStopping: Type.Boolean(),
    durability: Type.Enum(['local', 'replicated'], { description: 'Of what is acknowledged, unless asked otherwise' }),
    dataDir: Type.Optional(
      Type.Object(
        { freeBytes: Type.Number(), totalBytes: Type.Number() },
        { description: 'Of the disk under MUSTER_DATA_DIR; absent when it cannot be looked at' },
      ),
    ),
    overloaded: Type.Optional(Type.String({ description: 'Why no new work is taken now, memory or disk' })),
    redis: Type.Object({
      kind: Type.Enum(['embedded', 'single', 'sentinel', 'cluster']),
      pingMs: Type.Optional(Type.Number()),
      error: Type.Optional(Type.String({ description: 'Redis does not answer this node' })),
    }),
    fleet: Type.Object({
      provider: Type.Enum(['local', 'ec2', 'none']),
      maxWorkers: Type.Integer({ description: 'Of all queues together' }),
      failures: Type.Array(
        Type.Object({
          queue: Type.String(),
          count: Type.Integer({ description: 'Launches in a row that brought up no lasting worker' }),
          lastAt: Type.String({ description: 'ISO 8601' }),
          lastError: Type.Optional(Type.String()),
        }),
      ),
    }),
    standingStill: Type.Optional(
      Type.Array(Type.Object({ queue: Type.String(), workerId: Type.String(), forMs: Type.Integer() }), {
        description: 'Workers that are ready and have no job, while work that they can run has waited for long',
      }),
    ),
    withoutWorker: Type.Optional(
      Type.Array(Type.Object({ queue: Type.String(), type: Type.String(), waitingCount: Type.Integer() }), {
        description: 'Types of which jobs wait that no living worker runs; absent when Redis does not answer',
      }),
    ),
    workers: Type.Optional(
      Type.Object(
        {
          aliveCount: Type.Integer(),
          silentCount: Type.Integer({ description: 'Known, not stopped, and not heard of for too long' }),
          longestSilenceMs: Type.Optional(Type.Integer({ description: 'Since the last heartbeat, of those alive' })),
        },
        { description: 'Absent when Redis does not answer' },
      ),
    ),
  },
  { description: 'The inside view of a node' },
)
export type NodeReport = Static<typeof NodeReport>
