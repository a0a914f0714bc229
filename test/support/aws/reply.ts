/** What the front answers, and how it refuses. */
import type { HttpReply } from './http-call.ts'
import { ec2Error } from './xml.ts'

export interface Reply {
  readonly status: number
  readonly type: string
  readonly body: string | Buffer
  readonly headers?: NodeJS.Dict<string | string[]>
  /** `ok`, or the code of the error. */
  readonly outcome: string
}

export const xmlReply = (body: string): Reply => ({ status: 200, type: 'text/xml;charset=UTF-8', body, outcome: 'ok' })
export const jsonReply = (body: unknown): Reply => ({
  status: 200,
  type: 'application/x-amz-json-1.1',
  body: JSON.stringify(body),
  outcome: 'ok',
})

/** A refusal in the words of EC2, thrown by a rule and written by the front. */
export class Refusal extends Error {
  readonly code: string
  readonly status: number

  constructor(code: string, message: string, status = statusOf(code)) {
    super(message)
    this.code = code
    this.status = status
  }
}

/** EC2 answers 400 to most mistakes; these are its own troubles. */
function statusOf(code: string): number {
  if (code === 'RequestLimitExceeded' || code === 'Unavailable' || code === 'ServiceUnavailable') return 503
  return code === 'InsufficientInstanceCapacity' || code === 'InternalError' ? 500 : 400
}

/** @param isJson the caller speaks a JSON protocol, not EC2's XML */
export function errorReply({ code, message, status }: Refusal, isJson: boolean): Reply {
  return isJson
    ? { ...jsonReply({ __type: code, message }), status, outcome: code }
    : { ...xmlReply(ec2Error(code, message)), status, outcome: code }
}

/** Headers that belong to the connection to moto, not to its answer. */
const hopByHop = ['connection', 'content-length', 'transfer-encoding', 'keep-alive', 'content-type']

/** What moto itself said, as it is. */
export function passOn({ status, headers, body }: HttpReply): Reply {
  const [, xmlCode, jsonCode] = /<Code>([^<]+)|"__type":\s*"([^"]+)/.exec(body.toString()) ?? []
  return {
    status,
    type: headers['content-type'] ?? 'text/plain',
    headers: Object.fromEntries(Object.entries(headers).filter(([name]) => !hopByHop.includes(name))),
    body,
    outcome: status < 400 ? 'ok' : (xmlCode ?? jsonCode ?? String(status)),
  }
}
