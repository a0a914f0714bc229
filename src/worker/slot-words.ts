/** What goes into and comes out of a slot, in the words of the other side. Pure. */
import type { AbortWhy } from '../handlers/define-handler.ts'
import type { Attempt, Outcome, Verdict } from './attempt.ts'
import type { SlotError, SlotJob } from './slot-protocol.ts'

/** What a handler is told when its attempt is ended. */
export const aborts: Record<Verdict, (attempt: Attempt) => { why: AbortWhy; message: string }> = {
  timeout: ({ lease }) => ({ why: 'timeout', message: `The run-time limit of ${lease.timeoutMs} ms is over` }),
  stopped: () => ({ why: 'stopped', message: 'The job was cancelled, or its lease is lost' }),
  returned: () => ({ why: 'worker-leaves', message: 'The worker must go' }),
  interrupted: () => ({ why: 'interruption', message: 'The instance is about to be interrupted' }),
}

/** Blobs come ahead of the job. */
export function toSlotJob({ id, lease }: Attempt): SlotJob {
  const { workId, type, attempt, attempts, params, payload, checkpoint } = lease
  return {
    id,
    workId,
    type,
    attempt,
    attempts,
    params,
    ...('blob' in payload ? {} : { payload }),
    ...(checkpoint === undefined || 'blob' in checkpoint ? {} : { checkpoint }),
  }
}

export function toAttemptError({
  code,
  message,
  stack,
  final,
}: SlotError): Extract<Outcome, { error: unknown }>['error'] {
  return {
    code: code ?? 'handler_error',
    message,
    ...(stack === undefined ? {} : { stack }),
    ...(final === true ? { retryable: false } : {}),
  }
}

export function timedOut({ lease }: Attempt, durationMs: number): Outcome {
  return {
    durationMs,
    error: { code: 'timeout', message: `The attempt ran longer than its limit of ${lease.timeoutMs} ms` },
  }
}
