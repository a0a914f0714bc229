/**
 * What the documentation says of each operation beside its schema: a sentence or two, and a command to paste. By
 * operationId; a test holds that none is missing. MUSTER is the address of a node; with keys, each command needs -H
 * "Authorization: Bearer $MUSTER_API_KEY".
 */

export interface OperationDocs {
  readonly description: string
  /** Arguments of curl. */
  readonly example: string
}

const json = "-H 'Content-Type: application/json'"

export const operationDocs: Readonly<Record<string, OperationDocs>> = {
  enqueue: {
    description:
      'Answers once the job is kept. `GET /types` lists the types. POST does the same. With the header Idempotency-Key a request may be sent again without a second job.',
    example: `-X PUT "$MUSTER/enqueue?iterations=1000" -H 'Content-Type: application/octet-stream' --data-binary @README.md`,
  },
  pullCompleted: {
    description: 'Oldest first, each handed out once.',
    example: '-X POST "$MUSTER/pullCompleted?top=10&waitMs=10000"',
  },
  ackCompleted: {
    description: 'After a pull with leaseMs: acked results are not handed out again. Acking twice is fine.',
    example: `-X POST "$MUSTER/pullCompleted/ack" ${json} -d '{"workIds":["wQ2…"]}'`,
  },
  getStatus: { description: 'Jobs by state, and the workers that are alive.', example: '"$MUSTER/status"' },
  listTypes: { description: 'By name.', example: '"$MUSTER/types"' },
  entrance: { description: 'A browser is sent on to /docs.', example: '"$MUSTER/"' },
  listJobs: {
    description: 'Running, waiting, delayed, then finished ones, newest first. Pass nextCursor for the next page.',
    example: '"$MUSTER/jobs?state=dead&type=primes&limit=20"',
  },
  getJob: {
    description: 'Its state, attempts, times, progress and the error of its latest failed attempt.',
    example: '"$MUSTER/jobs/wQ2…"',
  },
  cancelJob: { description: 'Cancelling twice is fine.', example: '-X DELETE "$MUSTER/jobs/wQ2…"' },
  getResult: { description: 'Reading does not collect.', example: '"$MUSTER/jobs/wQ2…/result"' },
  getLogs: {
    description: 'What the handler logged and printed, oldest first; at most 1,000 lines are kept.',
    example: '"$MUSTER/jobs/wQ2…/logs?limit=100"',
  },
  retryJob: { description: 'With all its attempts before it.', example: '-X POST "$MUSTER/jobs/wQ2…/retry"' },
  listQueues: { description: 'With their state, counts and limits.', example: '"$MUSTER/queues"' },
  getQueue: { description: 'Its state, counts and limits.', example: '"$MUSTER/queues/default"' },
  pauseQueue: {
    description: 'Jobs that run are finished. It lasts until the queue is resumed, over restarts too.',
    example: '-X POST "$MUSTER/queues/default/pause"',
  },
  resumeQueue: { description: 'Also when neither was asked for.', example: '-X POST "$MUSTER/queues/default/resume"' },
  drainQueue: {
    description:
      'New jobs are refused with queue_draining until the queue is resumed. A request whose Idempotency-Key has made a job before is answered with its Work ID.',
    example: '-X POST "$MUSTER/queues/default/drain"',
  },
  retryQueue: {
    description: 'Oldest first, up to a limit; each with all its attempts before it.',
    example: '-X POST "$MUSTER/queues/default/retry"',
  },
  getFleet: {
    description: 'A pool for each queue: its instances, its workers with their leases, and the latest decision.',
    example: '"$MUSTER/fleet"',
  },
  listDecisions: { description: 'Newest first.', example: '"$MUSTER/fleet/decisions?queue=default&limit=10"' },
  getDecision: {
    description: 'The snapshot that the autoscaler saw, each rule that applied, and the actions.',
    example: '"$MUSTER/fleet/decisions/d-1"',
  },
  getLatestDecision: {
    description: 'It says why the pool has its size now.',
    example: '"$MUSTER/fleet/pools/default/decision"',
  },
  spawnInstances: {
    description: 'They count against the ceiling of the pool and end like all others when they are idle.',
    example: `-X POST "$MUSTER/fleet/spawn" ${json} -d '{"queue":"default","count":2}'`,
  },
  terminateInstance: {
    description: 'Its worker claims nothing more. With force=true what runs goes back to the queue, no attempt spent.',
    example: '-X POST "$MUSTER/fleet/instances/i-0123456789abcdef0/terminate"',
  },
  deployHandlers: {
    description:
      'The body is a module that "muster handlers bundle" made, or one source file that imports nothing but `muster` and what Node.js has; at most 8 MiB. It is loaded once in a process of its own: if that fails, nothing changes. Jobs that run end on the handlers before.',
    example: `-X PUT "$MUSTER/handlers" -H 'Content-Type: text/typescript' --data-binary @my-handlers.ts`,
  },
  workerHeartbeat: {
    description:
      'The first one introduces the worker and the types that it runs. A long poll with waitMs: orders arrive at once.',
    example: `-X POST "$MUSTER/workers/heartbeat" ${json} -d @heartbeat.json`,
  },
  workerClaim: {
    description:
      'A long poll: answers when there are jobs, or with none after waitMs. Each lease has a token of its own.',
    example: `-X POST "$MUSTER/workers/claim" ${json} -d '{"workerId":"w1","queue":"default","max":1,"waitMs":10000}'`,
  },
  workerComplete: {
    description: 'An outcome under a token that does not hold any more is answered "stale" and changes nothing.',
    example: `-X POST "$MUSTER/workers/complete" ${json} -d @results.json`,
  },
  workerReturn: {
    description: 'For a worker that must go: others can run the jobs at once.',
    example: `-X POST "$MUSTER/workers/return" ${json} -d '{"workerId":"w1","queue":"default","jobs":[{"workId":"wQ2…","token":"…"}]}'`,
  },
  workerBundle: {
    description: 'It needs Node.js and nothing else.',
    example: '"$MUSTER/workers/bundle.tgz" -o worker.tgz',
  },
  workerHandlers: {
    description: 'What a worker loads beside the built-in types. The header Muster-Digest has its SHA-256.',
    example: '"$MUSTER/workers/handlers" -o handlers.mjs',
  },
  workerJoin: {
    description: 'With the join secret as bearer token.',
    example: `-X POST "$MUSTER/workers/join" ${json} -d @join.json`,
  },
  workerPayload: {
    description: 'The lease names this address; the token of the lease is part of it.',
    example: '"$MUSTER/workers/payloads/wQ2…?token=…" -o payload',
  },
  workerCheckpoint: {
    description:
      'Of any size, with Content-Length and Repr-Digest. A lease names this address for a checkpoint over the inline limit; the token of the lease is part of it.',
    example: '"$MUSTER/workers/checkpoints/wQ2…?token=…" -o checkpoint',
  },
  workerKeepCheckpoint: {
    description: 'The next attempt gets the newest; they are dropped when the job has succeeded.',
    example: '-X PUT "$MUSTER/workers/checkpoints/wQ2…?token=…" --data-binary @checkpoint',
  },
  workerUploadResult: {
    description: 'Before the completion, which then refers to it.',
    example: '-X PUT "$MUSTER/workers/results/wQ2…?token=…&kind=bytes" --data-binary @value',
  },
  createKey: {
    description: 'Its secret is in this reply and nowhere else. The first key closes a node on loopback, too.',
    example: `-X POST "$MUSTER/keys" ${json} -d '{"name":"ci","roles":["submit","collect"]}'`,
  },
  listKeys: { description: 'With their roles, queues and times.', example: '"$MUSTER/keys"' },
  rotateKey: {
    description: 'The old secret works beside the new one for graceMs.',
    example: `-X POST "$MUSTER/keys/AbC123/rotate" ${json} -d '{"graceMs":86400000}'`,
  },
  revokeKey: { description: 'On all nodes, at once.', example: '-X DELETE "$MUSTER/keys/AbC123"' },
  listAudit: { description: 'Newest first.', example: '"$MUSTER/audit?limit=20"' },
  live: { description: 'For supervisors; /livez and /healthz are the same.', example: '"$MUSTER/health/live"' },
  ready: {
    description: 'For load balancers; /readyz is the same. 503 while Redis is away or the node is about to stop.',
    example: '"$MUSTER/health/ready"',
  },
  nodeChecks: { description: 'Answers 200 in any case.', example: '"$MUSTER/health/checks"' },
}

interface Operation {
  readonly operationId?: string
  description?: string
  'x-codeSamples'?: { lang: string; label: string; source: string }[]
}

/** Adds them to the operations of an OpenAPI document; what a route says itself stays. */
export function documentOperations(paths: Readonly<Record<string, object>>): void {
  for (const operation of Object.values(paths).flatMap(path => Object.values(path) as Operation[])) {
    const docs = operationDocs[operation.operationId ?? '']
    if (docs === undefined) continue
    operation.description ??= docs.description
    operation['x-codeSamples'] = [{ lang: 'Shell', label: 'curl', source: `curl ${docs.example}` }]
  }
}
