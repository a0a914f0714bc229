/** Translates between leases and slot messages, in both directions. Pure. */
import type { AttemptError } from '../../contract/worker-protocol.ts'
import type { AbortWhy } from '../../handlers/define-handler.ts'
import type { Attempt, EndReason, Outcome } from '../attempts/attempt.ts'
import type { Blob, SlotError, SlotJob } from '../protocol/slot-protocol.ts'

/** Of an error's code, as nodes take it. */
const maxCodeChars = 128
const maxNameChars = 256
const maxCauseChars = 4096

/** What a handler is told when its attempt is ended. */
export const aborts: Record<EndReason, (attempt: Attempt) => { why: AbortWhy; message: string }> = {
  timeout: ({ lease }) => ({ why: 'timeout', message: `The run-time limit of ${lease.timeoutMs} ms is over` }),
  stopped: () => ({ why: 'stopped', message: 'The job was cancelled, or its lease is lost' }),
  requeued: () => ({ why: 'worker-leaves', message: 'The worker must go' }),
  interrupted: () => ({ why: 'interruption', message: 'The instance is about to be interrupted' }),
}

/**
 * Blobs of the lease are streamed ahead of the job.
 * @param isIsolated it is the only one of its slot
 * @param body gets the bytes that the frame carries
 */
export function toSlotJob({ id, lease, isCheckpointFetched }: Attempt, isIsolated: boolean, body: Buffer[]): SlotJob {
  const { workId, type, attempt, attempts, params, payload, checkpoint } = lease
  return {
    id,
    workId,
    type,
    attempt,
    attempts,
    params,
    ...(isIsolated ? { isolated: true } : {}),
    ...('blob' in payload ? {} : { payload: 'base64' in payload ? inBody(payload.base64, body) : payload }),
    ...(checkpoint === undefined || isCheckpointFetched || !('base64' in checkpoint)
      ? {}
      : { checkpoint: inBody(checkpoint.base64, body) }),
  }
}

function inBody(base64: string, body: Buffer[]): { blob: Blob } {
  const bytes = Buffer.from(base64, 'base64')
  body.push(bytes)
  return { blob: { kind: 'bytes', bytes: bytes.length } }
}

export function toAttemptError({ code, message, stack, name, cause, final }: SlotError): AttemptError {
  return {
    code: code === undefined || code === '' ? 'handler_error' : code.slice(0, maxCodeChars),
    message,
    ...(stack === undefined ? {} : { stack }),
    ...(name === undefined ? {} : { name: name.slice(0, maxNameChars) }),
    ...(cause === undefined ? {} : { cause: cause.slice(0, maxCauseChars) }),
    ...(final === true ? { retryable: false } : {}),
  }
}

/** The error of an attempt that cannot be encoded for its slot: a retry would fail in the same way. */
export function unreadable(error: unknown): AttemptError {
  const why = error instanceof Error ? error.message : String(error)
  return {
    code: 'payload_unreadable',
    message: `The job cannot be handed to a handler, its JSON may be nested too deeply: ${why}`,
    retryable: false,
  }
}

/** The error of an attempt whose slots end before they have received all of it. @param death of the last slot */
export const whileFetching = ({ code, message }: AttemptError): AttemptError => ({
  code,
  message: `Its slots end while its payload or checkpoint is brought into them: ${message}`,
})

/** Values above this go to a node as they are; smaller ones become a part of a larger JSON text. */
const checkedUpToBytes = 1024 * 1024

/** @throws Error when the value is no JSON: it could say anything about other jobs of the same call */
export function checkedJson(bytes: Buffer): void {
  if (bytes.length > checkedUpToBytes) return
  try {
    JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    throw new Error('a value that is not JSON', { cause: error })
  }
}

export function timedOut({ lease }: Attempt, durationMs: number): Outcome {
  return {
    durationMs,
    error: { code: 'timeout', message: `The attempt ran longer than its limit of ${lease.timeoutMs} ms` },
  }
}
