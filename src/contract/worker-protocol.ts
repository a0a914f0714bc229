/**
 * The wire protocol between a worker and a node, as schemas (the node validates with them, the OpenAPI document is made
 * from them) and as types (the worker is written against them). In words: docs/worker-protocol.md.
 */
import { type Static, Type } from 'typebox'

export const WorkId = Type.String({ minLength: 1, maxLength: 128, description: 'The public id of a job' })

const Token = Type.String({ minLength: 1, maxLength: 256, description: 'The fencing token of one attempt' })

/** Names one attempt at one job: a worker that shows both may act on it. */
export const LeaseRef = Type.Object({ workId: WorkId, token: Token })
export type LeaseRef = Static<typeof LeaseRef>

/** Bytes or JSON that stand in the message, or a blob to fetch or already uploaded. Exactly one form. */
export const Content = Type.Union([
  Type.Object({ json: Type.Unknown() }, { additionalProperties: false, description: 'A JSON value' }),
  Type.Object(
    { base64: Type.String({ pattern: '^[A-Za-z0-9+/]*={0,2}$' }) },
    { additionalProperties: false, description: 'Bytes' },
  ),
  Type.Object(
    {
      blob: Type.Object({
        url: Type.String({ description: 'Where it is; relative to the node' }),
        kind: Type.Enum(['bytes', 'json']),
        bytes: Type.Integer({ minimum: 0 }),
        sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
      }),
    },
    { additionalProperties: false, description: 'Content over the inline limit, kept outside Redis' },
  ),
])
export type Content = Static<typeof Content>

/** How a worker describes itself in every heartbeat. */
export const WorkerDescription = Type.Object({
  workerId: Type.String({ pattern: '^[A-Za-z0-9_-]{1,64}$' }),
  queue: Type.String(),
  slots: Type.Integer({ minimum: 1, maximum: 1024 }),
  types: Type.Array(Type.String({ maxLength: 128 }), { maxItems: 1000 }),
  instanceId: Type.Optional(
    Type.String({ maxLength: 128, description: 'The instance under the worker, from MUSTER_INSTANCE_ID' }),
  ),
  host: Type.Optional(Type.String({ maxLength: 256 })),
  pid: Type.Optional(Type.Integer()),
  version: Type.Optional(Type.String({ maxLength: 64 })),
  startedAt: Type.Optional(Type.String({ description: 'ISO 8601' })),
  boot: Type.Optional(
    Type.Object(
      {
        bootedAt: Type.Optional(Type.String({ maxLength: 40, description: 'When the kernel of its machine came up' })),
        userDataAt: Type.Optional(Type.String({ maxLength: 40, description: 'When the user data began to run' })),
        installedAt: Type.Optional(Type.String({ maxLength: 40, description: 'When the code was in its place' })),
        agentAt: Type.Optional(Type.String({ maxLength: 40, description: 'When the process of the worker began' })),
      },
      { description: 'How its instance booted, as far as it knows; ISO 8601. For display only' },
    ),
  ),
})
export type WorkerDescription = Static<typeof WorkerDescription>

/** What a worker knows about the end of its instance; every heartbeat carries it from then on. */
export const Interruption = Type.Object(
  {
    kind: Type.Enum(['interruption', 'rebalance'], {
      description: 'interruption: the instance ends at that time; rebalance: it may be interrupted before long',
    }),
    at: Type.String({
      pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d{1,9})?Z$',
      description: 'ISO 8601, UTC: the end, or when the rebalance was advised',
    }),
  },
  { description: 'The instance under the worker is to end' },
)
export type Interruption = Static<typeof Interruption>

export const HeartbeatRequest = Type.Object({
  worker: WorkerDescription,
  state: Type.Enum(['ready', 'draining', 'stopped']),
  leases: Type.Array(LeaseRef, {
    maxItems: 10_000,
    description: 'All that the worker holds; each is extended by leaseMs',
  }),
  progress: Type.Optional(
    Type.Array(
      Type.Object({
        ...LeaseRef.properties,
        fraction: Type.Number({ minimum: 0, maximum: 1 }),
        note: Type.Optional(Type.String({ maxLength: 1000 })),
      }),
    ),
  ),
  logs: Type.Optional(
    Type.Array(Type.Object({ ...LeaseRef.properties, lines: Type.Array(Type.String(), { maxItems: 1000 }) })),
  ),
  waitMs: Type.Optional(
    Type.Integer({ minimum: 0, maximum: 30_000, description: 'How long the reply may wait for news' }),
  ),
  interruption: Type.Optional(Interruption),
})
export type HeartbeatRequest = Static<typeof HeartbeatRequest>

export const HeartbeatReply = Type.Object({
  leaseMs: Type.Integer({ description: 'How long each lease holds from now; send the next heartbeat well before' }),
  stop: Type.Array(Type.Object({ workId: WorkId, token: Token, reason: Type.Enum(['cancelled', 'lost']) }), {
    description: 'Leases that have ended: stop these jobs and report nothing about them',
  }),
  drain: Type.Boolean({ description: 'Claim nothing more, finish what runs, requeue what has not started, and stop' }),
  handlers: Type.Optional(
    Type.String({
      description:
        "SHA-256 of the deployment's handlers, in hex: fetch them when it is another one; absent: there are none",
    }),
  ),
  token: Type.Optional(
    Type.String({ description: 'A new token for a worker whose token expires: send it as bearer token from now on' }),
  ),
})
export type HeartbeatReply = Static<typeof HeartbeatReply>

/** An instance of the fleet asks for its first token, with the join secret as bearer token. */
export const JoinRequest = Type.Object({
  instanceId: Type.String({ minLength: 1, maxLength: 128 }),
  queue: Type.String({ minLength: 1, maxLength: 64 }),
  nonce: Type.Optional(
    Type.String({
      pattern: '^[0-9a-f]{64}$',
      description:
        'A random value that the instance makes before its first join and keeps readable only for root; later joins show it',
    }),
  ),
  document: Type.Optional(
    Type.String({
      maxLength: 16_384,
      description: 'Its identity document as signed by AWS (dynamic/instance-identity/rsa2048), base64',
    }),
  ),
})
export type JoinRequest = Static<typeof JoinRequest>

export const JoinReply = Type.Object({
  token: Type.String({ description: 'Good for the first heartbeat, whose reply has the next one' }),
  expiresAt: Type.String({ description: 'ISO 8601' }),
})
export type JoinReply = Static<typeof JoinReply>

/** A job handed to a worker for one attempt. */
export const Lease = Type.Object({
  workId: WorkId,
  token: Token,
  type: Type.String(),
  attempt: Type.Integer({ minimum: 1, description: 'Which attempt this is' }),
  attempts: Type.Integer({ minimum: 1, description: 'How many there may be' }),
  payload: Content,
  params: Type.Record(Type.String(), Type.Unknown(), { description: 'iterations for sha512; else empty' }),
  timeoutMs: Type.Integer({ minimum: 1, description: 'Run-time limit of this attempt; the worker enforces it' }),
  checkpoint: Type.Optional(Content),
  exclusive: Type.Optional(
    Type.Boolean({ description: 'Workers were lost under this job: run it exclusively, with no other job beside it' }),
  ),
  isolation: Type.Optional(
    Type.Enum(['process'], {
      description:
        'Its queue asks for it: run it in a process that has run no job before, and end that with the attempt',
    }),
  ),
})
export type Lease = Static<typeof Lease>

const ClaimedTypes = Type.Optional(
  Type.Array(Type.String({ maxLength: 128 }), {
    maxItems: 1000,
    description: 'Claim only these types; default: the types that the latest heartbeat declared',
  }),
)

/** Of a worker that follows the handlers of the nodes. */
const FollowedHandlers = Type.Optional(
  Type.String({
    maxLength: 128,
    description:
      'The digest of the node handlers that the worker loaded last. It gets no job while the node has others. Left out: the worker runs its own handlers',
  }),
)

export const ClaimRequest = Type.Object({
  workerId: Type.String(),
  queue: Type.String(),
  types: ClaimedTypes,
  handlers: FollowedHandlers,
  max: Type.Integer({ minimum: 1, maximum: 1000 }),
  waitMs: Type.Optional(
    Type.Integer({ minimum: 0, maximum: 30_000, description: 'How long the reply may wait for the first job' }),
  ),
})
export type ClaimRequest = Static<typeof ClaimRequest>

export const ClaimReply = Type.Object({ leaseMs: Type.Integer(), jobs: Type.Array(Lease), drain: Type.Boolean() })
export type ClaimReply = Static<typeof ClaimReply>

export const AttemptError = Type.Object({
  code: Type.String({
    maxLength: 128,
    description: 'handler_error, timeout, crash, out_of_memory, type_unsupported, payload_unreadable, …',
  }),
  message: Type.String(),
  stack: Type.Optional(Type.String()),
  name: Type.Optional(Type.String({ maxLength: 256, description: 'The class of the error, TypeError for example' })),
  cause: Type.Optional(
    Type.String({ maxLength: 4096, description: 'What it came from, step by step: "Error: … ← TypeError: …"' }),
  ),
  retryable: Type.Optional(Type.Boolean({ description: 'false: no further attempt' })),
})
export type AttemptError = Static<typeof AttemptError>

/** No run-time limit is longer than a week. */
const mostDurationMs = 8 * 86_400_000

export const Completion = Type.Object({
  workId: WorkId,
  token: Token,
  type: Type.String(),
  durationMs: Type.Number({
    minimum: 0,
    maximum: mostDurationMs,
    description: 'How long the attempt ran in its slot. It counts for no longer than the lease was held',
  }),
  value: Type.Optional(Content),
  error: Type.Optional(AttemptError),
  logs: Type.Optional(Type.Array(Type.String())),
})
export type Completion = Static<typeof Completion>

export const CompleteRequest = Type.Object({
  workerId: Type.String(),
  queue: Type.String(),
  results: Type.Array(Completion, { minItems: 1, maxItems: 1000 }),
  types: ClaimedTypes,
  handlers: FollowedHandlers,
  claim: Type.Optional(
    Type.Integer({ minimum: 0, maximum: 1000, description: 'Also claim up to this many, without waiting' }),
  ),
})
export type CompleteRequest = Static<typeof CompleteRequest>

export const CompleteReply = Type.Object({
  leaseMs: Type.Integer(),
  results: Type.Array(
    Type.Object({
      workId: WorkId,
      outcome: Type.Enum(['succeeded', 'retrying', 'dead', 'requeued', 'stale'], {
        description:
          'stale: the lease was gone, nothing was recorded; requeued: after type_unsupported, no attempt was spent',
      }),
    }),
  ),
  jobs: Type.Array(Lease),
  drain: Type.Boolean(),
})
export type CompleteReply = Static<typeof CompleteReply>

export const ReturnRequest = Type.Object({
  workerId: Type.String(),
  queue: Type.String(),
  jobs: Type.Array(LeaseRef, { minItems: 1, maxItems: 1000 }),
})
export type ReturnRequest = Static<typeof ReturnRequest>

export const ReturnReply = Type.Object({
  returned: Type.Integer({ description: 'How many were requeued; no attempt is spent' }),
})
export type ReturnReply = Static<typeof ReturnReply>

/**
 * `PUT /workers/results/{workId}?token=…&kind=bytes|json`, body raw: the reply is the Content to put into the
 * completion.
 */
export const UploadReply = Type.Object({ value: Content })
export type UploadReply = Static<typeof UploadReply>

/** `PUT /workers/checkpoints/{workId}?token=…`, body raw: kept for the next attempt, in place of the one before. */
export const CheckpointReply = Type.Object({ bytes: Type.Integer({ description: 'How many were kept' }) })
export type CheckpointReply = Static<typeof CheckpointReply>
