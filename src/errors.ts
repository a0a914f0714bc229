/**
 * The catalogue of everything that a caller can be told went wrong: one stable code each, its HTTP status, a title,
 * and what to do about it. `docs/errors.md` is held against this list by a test.
 */

interface CatalogueEntry {
  readonly status: number
  readonly title: string
  readonly action: string
}

export const catalogue = {
  body_too_large: {
    status: 413,
    title: 'The body is over the limit',
    action:
      'Send less, or raise MUSTER_MAX_BODY_BYTES (at most 64 MiB while payloads are kept in Redis: S3 and folders hold more). JSON and form bodies have a lower limit: send raw bytes instead (a worker uploads its value by PUT /workers/results/{workId}).',
  },
  body_too_slow: {
    status: 408,
    title: 'The body came too slowly',
    action: 'Send it again, faster: 20 s without a byte, or less than 500 B/s after 30 s, ends a request.',
  },
  content_encoding_unsupported: {
    status: 415,
    title: 'Bodies are taken as they are, not compressed',
    action: 'Send the body without Content-Encoding, and with no Transfer-Encoding but chunked.',
  },
  content_type_missing: {
    status: 415,
    title: 'The request has a body but no Content-Type',
    action: 'Say what the body is: application/octet-stream, multipart/form-data, application/json or a form.',
  },
  content_type_unsupported: {
    status: 415,
    title: 'This Content-Type is not understood here',
    action: 'Send the body with a Content-Type that detail names.',
  },
  cursor_invalid: {
    status: 400,
    title: 'The cursor is not one of ours',
    action:
      'Pass the nextCursor of the previous page as it was, with the same filters, or leave it out to start again.',
  },
  data_invalid: {
    status: 400,
    title: 'The data cannot be read',
    action: 'Send the bytes raw, as the multipart file or form field "data", or as {"data": "<base64>"}.',
  },
  data_missing: {
    status: 400,
    title: 'The request carries no data',
    action: 'Send the bytes raw, as the multipart file or form field "data", or as {"data": "<base64>"}.',
  },
  decision_not_found: {
    status: 404,
    title: 'No such decision is in the journal',
    action: 'See GET /fleet/decisions for the newest 1,000; a pool has one once the autoscaler has looked at it.',
  },
  drained_worker: {
    status: 409,
    title: 'This worker was told to go and may not claim',
    action: 'Finish what is running, complete it, and stop. A new worker registers under a new id.',
  },
  expectation_unsupported: {
    status: 417,
    title: 'This Expect header cannot be met',
    action: 'Leave Expect out, or send "Expect: 100-continue".',
  },
  fleet_at_ceiling: {
    status: 409,
    title: 'The pool has as many instances as it may have',
    action: 'Wait for one to end, or raise MUSTER_MAX_WORKERS (or maxWorkers of the queue in muster.yaml).',
  },
  fleet_launch_failed: {
    status: 503,
    title: 'No instance could be launched',
    action: 'See detail for what was refused and why; ask again when that is mended, or there is room again.',
  },
  fleet_none: {
    status: 409,
    title: 'This node has no fleet',
    action: 'Start workers yourself with "muster worker", or start the node with MUSTER_FLEET=local or ec2.',
  },
  forbidden: {
    status: 403,
    title: 'This key may not do that',
    action: 'Use a key with the role (or the queue) that detail names; "muster keys create" makes one.',
  },
  handlers_invalid: {
    status: 400,
    title: 'These handlers cannot be used',
    action:
      'Fix what detail names, at the place that it names; the handlers before stay in force. "muster handlers bundle" makes a module of a file and all that it imports.',
  },
  idempotency_key_invalid: {
    status: 400,
    title: 'The Idempotency-Key cannot be used',
    action: 'Use 1 to 255 visible ASCII characters, a UUID for example.',
  },
  idempotency_key_reused: {
    status: 409,
    title: 'This Idempotency-Key already stands for another request',
    action: 'Use a new key for a new job; repeat a key only with the very same request.',
  },
  instance_not_found: {
    status: 404,
    title: 'No instance and no worker has this id',
    action: 'See GET /fleet for those that there are; one that has ended is forgotten.',
  },
  internal_error: {
    status: 500,
    title: 'Something broke that should not',
    action: 'Try again; if it persists, look for the request id in the log of the node.',
  },
  iterations_missing: {
    status: 400,
    title: 'The request says neither iterations nor type',
    action: 'Add ?iterations=N to hash (type sha512), or ?type=… for another kind of work.',
  },
  job_cancelled: {
    status: 409,
    title: 'The job was cancelled',
    action: 'It has no result; submit it again if you want one.',
  },
  job_dead: {
    status: 409,
    title: 'The job is dead',
    action: 'Its last error is in detail, its log at GET /jobs/{workId}/logs; POST /jobs/{workId}/retry replays it.',
  },
  job_finished: {
    status: 409,
    title: 'The job has finished',
    action: 'Nothing is left to cancel; its result is at GET /jobs/{workId}/result.',
  },
  job_not_dead: {
    status: 409,
    title: 'Only a dead job can be retried',
    action: 'Look at GET /jobs/{workId}: the job is waiting, running or succeeded.',
  },
  job_not_found: {
    status: 404,
    title: 'No job has this Work ID',
    action: 'Check the Work ID; a collected job is forgotten some time after it finished (MUSTER_RESULT_TTL_MS).',
  },
  json_invalid: {
    status: 400,
    title: 'The body is not valid JSON',
    action: 'Send one JSON object in UTF-8.',
  },
  json_too_deep: {
    status: 400,
    title: 'The JSON nests deeper than 256 levels',
    action: 'Nest less, or send it as bytes (application/octet-stream): those are passed on as they are.',
  },
  key_not_found: {
    status: 404,
    title: 'No key has this id',
    action: 'See GET /keys for those that there are; one that was revoked is gone.',
  },
  lease_lost: {
    status: 409,
    title: 'The lease on this job is gone',
    action: 'Stop running the job: it was cancelled, or it went back to the queue when its lease ran out.',
  },
  lease_not_found: {
    status: 404,
    title: 'No such lease on results',
    action: 'Pull again: a lease ends when its time is up, and its results are handed out again.',
  },
  method_not_allowed: {
    status: 405,
    title: 'This path does not take that method',
    action: 'See the Allow header, and /docs/api for the whole API.',
  },
  multipart_invalid: {
    status: 400,
    title: 'The multipart body is broken',
    action: 'Send a boundary, one part named "data", and the closing boundary; most HTTP clients do it for you.',
  },
  overloaded: {
    status: 503,
    title: 'The server has no room for more work now',
    action:
      'Wait as long as Retry-After says and send it again. If it stays so, do what detail says: it names memory or disk.',
  },
  parameter_invalid: {
    status: 400,
    title: 'A parameter is missing or out of range',
    action: 'See detail for the parameter, and /docs/api for what it may be.',
  },
  parameter_unknown: {
    status: 400,
    title: 'A parameter has an unknown name',
    action: 'See detail for the name, and /docs/api for those that exist.',
  },
  payload_invalid: {
    status: 400,
    title: 'The payload does not suit this type of job',
    action: 'See detail for what is wrong, and GET /types for what the type takes.',
  },
  payload_store_unavailable: {
    status: 503,
    title: 'The store of large payloads cannot be reached',
    action:
      'Wait as long as Retry-After says and send it again. If it stays so, see the log of the node, and "muster doctor".',
  },
  queue_draining: {
    status: 409,
    title: 'The queue is draining and takes no new jobs',
    action: 'Use another queue, or POST /queues/{name}/resume.',
  },
  queue_unknown: {
    status: 404,
    title: 'No queue has this name',
    action: 'Use one of GET /queues, or declare it in muster.yaml.',
  },
  redis_unavailable: {
    status: 503,
    title: 'Redis cannot be reached',
    action: 'Wait as long as Retry-After says and send it again; with the same Idempotency-Key it is one job.',
  },
  request_invalid: {
    status: 400,
    title: 'The request is malformed',
    action: 'See detail for what is wrong.',
  },
  result_not_ready: {
    status: 409,
    title: 'The job has no result yet',
    action: 'Ask again later, or wait for it with POST /pullCompleted?top=N&waitMs=….',
  },
  route_not_found: {
    status: 404,
    title: 'Nothing is at this path',
    action: 'See /docs/api for the API.',
  },
  shutting_down: {
    status: 503,
    title: 'This node is stopping',
    action: 'Send it to the other node, or again after Retry-After.',
  },
  too_many_requests: {
    status: 429,
    title: 'This caller has too much under way',
    action:
      'Wait as long as Retry-After says, and send fewer at once. The limits: MUSTER_MAX_REQUESTS_PER_CALLER, MUSTER_MAX_PENDING_BYTES, MUSTER_MAX_FAILED_LOGINS.',
  },
  type_unknown: {
    status: 400,
    title: 'No handler is known for this type',
    action: 'Use one of the types in detail, or start the node with --handlers and a file that defines it.',
  },
  unauthenticated: {
    status: 401,
    title: 'No key that is good here was sent',
    action: 'Send "Authorization: Bearer muster_…" with a key from "muster keys create".',
  },
  worker_unknown: {
    status: 409,
    title: 'This worker has not said who it is',
    action: 'Send POST /workers/heartbeat with the description of the worker first.',
  },
} as const satisfies Record<string, CatalogueEntry>

export type ProblemCode = keyof typeof catalogue

/** The catalogue as a page of Markdown: docs/errors.md, and what a node serves at /docs/errors. */
export function errorsPage(): string {
  const rows = Object.entries(catalogue).map(
    ([code, { status, title, action }]) => `| <a id="${code}"></a>\`${code}\` | ${status} | ${title} | ${action} |`,
  )
  return `# Errors

Every error is an RFC 9457 problem (\`application/problem+json\`) with a stable \`code\`, a \`detail\` that says what is wrong in
this very case, and an \`action\`. A 4xx changed nothing. A 503 carries \`Retry-After\`.

| code | status | what it says | what to do |
|---|---|---|---|
${rows.join('\n')}
`
}

export interface ProblemOptions {
  /** Sent as Retry-After, rounded up to whole seconds. */
  readonly retryAfterMs?: number
  readonly cause?: unknown
}

/** An error that a caller is meant to see: it becomes an RFC 9457 problem+json reply. */
export class Problem extends Error {
  readonly code: ProblemCode
  readonly status: number
  readonly retryAfterMs: number | undefined

  /**
   * @param code a key of the catalogue
   * @param detail what is wrong in this very case, in one sentence; the title of the code when left out
   */
  constructor(code: ProblemCode, detail?: string, options: ProblemOptions = {}) {
    super(detail ?? catalogue[code].title, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'Problem'
    this.code = code
    this.status = catalogue[code].status
    this.retryAfterMs = options.retryAfterMs ?? (this.status === 503 ? 2000 : undefined)
  }

  /** The reply body: RFC 9457 members and our own `code` and `action`. */
  toBody(): { type: string; title: string; status: number; detail: string; code: ProblemCode; action: string } {
    const { title, action } = catalogue[this.code]
    return {
      type: `/docs/errors#${this.code}`,
      title,
      status: this.status,
      detail: this.message,
      code: this.code,
      action,
    }
  }
}

/** A mistake in the settings or the environment that the operator must fix before the start. */
export class StartupError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'StartupError'
  }
}
