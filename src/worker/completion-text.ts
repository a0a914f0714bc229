/** Completions as JSON text: written once, when an attempt ends, however often they are sent. */
import type { AttemptError, Content } from '../contract/worker-protocol.ts'
import type { Attempt } from './attempt.ts'

const maxMessageChars = 16_384
const maxStackChars = 16_384

/** Where the value of a completion stands. */
export type Value = { readonly jsonText: string } | { readonly content: Content }

/**
 * One entry of CompleteRequest.results. Takes the rest of the attempt's log with it.
 * A JSON value comes as the text that the slot wrote, and is not parsed here.
 */
export function completionText(
  attempt: Attempt,
  durationMs: number,
  end: { value: Value } | { error: AttemptError },
): string {
  const { workId, token, type } = attempt.lease
  const logs = attempt.closeLogs()
  const head = JSON.stringify({ workId, token, type, durationMs, ...(logs === undefined ? {} : { logs }) }).slice(0, -1)
  if ('error' in end) return `${head},"error":${JSON.stringify(cut(end.error))}}`
  return `${head},"value":${'jsonText' in end.value ? `{"json":${end.value.jsonText}}` : JSON.stringify(end.value.content)}}`
}

function cut({ stack, ...error }: AttemptError): AttemptError {
  return {
    ...error,
    message: String(error.message).slice(0, maxMessageChars),
    ...(typeof stack === 'string' ? { stack: stack.slice(0, maxStackChars) } : {}),
  }
}
